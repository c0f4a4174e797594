"""Where checkpoints of sessions are kept: Ray's own store, Redis, or the memory of one process."""
