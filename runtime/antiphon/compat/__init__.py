"""Other names under which bots know what Antiphon offers."""
