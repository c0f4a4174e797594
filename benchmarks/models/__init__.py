"""What shared models cost and what they bear."""
