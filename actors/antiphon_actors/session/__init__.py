"""One bot session spread over processes: the same code at home and in every actor."""
