"""Calls that go on while what serves them is killed, frozen or lost; ``python -m benchmarks.chaos``."""
