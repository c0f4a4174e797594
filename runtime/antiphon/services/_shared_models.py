"""How services ask models that they share with others."""

from __future__ import annotations

import asyncio
from typing import Any

from antiphon.errors import OverloadedError
from antiphon.models.client import ModelClient


async def ask_patiently(
    client: ModelClient, payload: Any, *, deadline_secs: float, patience_secs: float
) -> Any:
    """Asks a model, and again when it says it has time, as there is a person who waits.

    Args:
        client: The connection to the model.
        payload: What to ask.
        deadline_secs: For each attempt.
        patience_secs: For how long to try again after a refusal.

    Returns:
        The result.

    Raises:
        OverloadedError: It was refused again and again.
        ServiceError: As `ModelClient.request`.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + patience_secs
    while True:
        try:
            return await client.request(payload, deadline_secs=deadline_secs)
        except OverloadedError as error:
            pause = error.retry_after or 0.0
            if loop.time() + pause >= until:
                raise
            await asyncio.sleep(pause)
