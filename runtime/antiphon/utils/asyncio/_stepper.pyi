import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

DONE: Any

class Stepper:
    def __init__(
        self,
        context: contextvars.Context,
        loop: asyncio.AbstractEventLoop,
        task: asyncio.Task[Any],
    ) -> None: ...
    def step(self, coroutine: Coroutine[Any, Any, Any]) -> Any: ...
