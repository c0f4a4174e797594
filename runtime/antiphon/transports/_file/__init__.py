"""Sound files as one end of a conversation."""
