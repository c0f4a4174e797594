"""What an output transport does for each of its destinations."""
