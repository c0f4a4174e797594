"""The client of OpenAI's speech services."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from typing import Any

from loguru import logger

from antiphon.errors import ConfigError, ServiceError
from antiphon.services._vendor_errors import vendor_error

_VENDOR = "OpenAI"
_CLOSE_SECS = 2.0
# Until the next piece of an answer, or a connection. The user is waiting for all of it.
_TIMEOUT_SECS = 30.0
_TRANSPORT_ERRORS = frozenset({"TransportError", "StreamError", "HTTPError"})


def require_sdk() -> None:
    """Checks that the SDK is there, without importing it.

    Raises:
        ConfigError: It is not installed.
    """
    if importlib.util.find_spec("openai") is None:
        raise ConfigError('OpenAI services need the openai package: pip install "antiphon"')


async def load_sdk() -> None:
    """Imports the SDK, which takes about a second, beside the event loop."""
    await asyncio.to_thread(importlib.import_module, "openai.resources.audio")


def make_client(owner: str, api_key: str | None, base_url: str | None) -> Any:
    """Makes the SDK's client.

    Args:
        owner: Name of the service, for the message.
        api_key: Key of the account; from ``OPENAI_API_KEY`` if None.
        base_url: Address of a compatible service.

    Raises:
        ConfigError: No key was given and none is in the environment.
    """
    import openai

    try:
        return openai.AsyncOpenAI(api_key=api_key, base_url=base_url, timeout=_TIMEOUT_SECS)
    except openai.OpenAIError:
        message = f"{owner} cannot be used: it needs api_key, or OPENAI_API_KEY in the environment"
        raise ConfigError(message) from None


async def close_client(client: Any, owner: str) -> None:
    """Closes the client's connections, within 2 s."""
    try:
        async with asyncio.timeout(_CLOSE_SECS):
            await client.close()
    except TimeoutError:
        logger.warning("connections did not close in time", processor=owner)


def service_error(error: Exception) -> ServiceError | None:
    """An exception of the SDK, or of the HTTP client under it, as ours; None for any other."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return vendor_error(
            _VENDOR,
            status=error.status_code,
            code=error.code or error.type,
            retry_after=error.response.headers.get("retry-after"),
        )
    # While an answer is read, the HTTP client's own exceptions come through.
    names = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, (openai.OpenAIError, OSError)) or names & _TRANSPORT_ERRORS:
        return vendor_error(_VENDOR, reason=type(error).__name__)
    return None
