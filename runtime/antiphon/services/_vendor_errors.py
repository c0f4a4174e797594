"""What went wrong at a vendor, as one of our errors."""

from __future__ import annotations

import re

from antiphon.errors import ServiceError

_BAD_KEY = (401, 403)
_NOT_FOUND = 404
_TIMED_OUT = 408
_CONFLICT = 409
_RATE_LIMIT = 429

# A code, not a sentence: vendors' sentences may repeat what was sent.
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def vendor_error(
    vendor: str,
    *,
    status: int | None = None,
    code: object = None,
    retry_after: str | None = None,
    reason: str | None = None,
) -> ServiceError:
    """Makes the error for a failed request; it holds neither keys nor what was said.

    Args:
        vendor: Name of the vendor, for people.
        status: HTTP status of the answer; None if there was none.
        code: The vendor's own short code; left out if it is more than a code.
        retry_after: The header of that name.
        reason: Without a status: what became of the connection.
    """
    if status is None:
        what, retryable = f"cannot be reached ({reason or 'no connection'})", True
    elif status in _BAD_KEY:
        what, retryable = "refused the API key: check api_key and what it may be used for", False
    elif status == _NOT_FOUND:
        what, retryable = "does not know what was asked for: check model, voice and address", False
    elif status == _RATE_LIMIT:
        what, retryable = "takes no more requests: too many at once, or the quota is used up", True
    elif status >= 500 or status in (_TIMED_OUT, _CONFLICT):
        what, retryable = "failed", True
    else:
        what, retryable = "did not accept the request", False
    facts = [] if status is None else [str(status)]
    if isinstance(code, str) and _CODE.fullmatch(code):
        facts.append(code)
    return ServiceError(
        f"{vendor} {what}" + (f" ({' '.join(facts)})" if facts else ""),
        retryable=retryable,
        retry_after=_seconds(retry_after),
        provider=vendor.lower(),
        status=status,
    )


def _seconds(retry_after: str | None) -> float | None:
    try:
        return float(retry_after) if retry_after else None
    except ValueError:  # a date
        return None
