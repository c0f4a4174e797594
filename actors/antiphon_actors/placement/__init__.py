"""Which processor lives where, and why."""
