"""Waiting times for connections that are tried again."""


def exponential_backoff_time(
    attempt: int, min_wait: float = 4, max_wait: float = 10, multiplier: float = 1
) -> float:
    """Returns how many seconds to wait before another attempt.

    Args:
        attempt: Number of the attempt that failed, counted from 1.
        min_wait: Shortest wait in seconds.
        max_wait: Longest wait in seconds.
        multiplier: Seconds that the first attempt would wait without the limits; each further
            attempt doubles them.
    """
    # A long outage must not make a number that no float can hold.
    exponent = min(max(attempt - 1, 0), 64)
    return max(min_wait, min(max_wait, multiplier * 2.0**exponent))
