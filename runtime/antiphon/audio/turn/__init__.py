"""End-of-turn analysis."""
