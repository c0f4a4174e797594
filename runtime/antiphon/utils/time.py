"""Times as text and as nanoseconds, the unit of the pipeline clock."""

from datetime import UTC, datetime

NANOSECONDS_PER_SECOND = 1_000_000_000


def time_now_iso8601() -> str:
    """Returns the present UTC time in ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def seconds_to_nanoseconds(seconds: float) -> int:
    """Converts seconds to whole nanoseconds."""
    return int(seconds * NANOSECONDS_PER_SECOND)


def nanoseconds_to_seconds(nanoseconds: int) -> float:
    """Converts nanoseconds to seconds."""
    return nanoseconds / NANOSECONDS_PER_SECOND


def nanoseconds_to_str(nanoseconds: int) -> str:
    """Formats a duration in nanoseconds as ``hours:minutes:seconds.microseconds``."""
    microseconds = nanoseconds // 1000
    seconds, microseconds = divmod(microseconds, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}.{microseconds:06}"
