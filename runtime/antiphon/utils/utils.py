"""Process-wide identifiers for frames, processors and tasks."""

from antiphon.frames._ids import obj_count, obj_id

__all__ = ["obj_count", "obj_id"]
