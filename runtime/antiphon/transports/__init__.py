"""Where frames meet the world: what a caller says comes in, what the bot says goes out."""
