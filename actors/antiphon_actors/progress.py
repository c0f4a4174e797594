"""Shows what a command is doing while it takes its time."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

_REFRESH_PER_SECOND = 8.0


class Progress:
    """A spinner with the present step on a terminal; a plain line for each step elsewhere.

    A context manager: the spinner is gone at its end at the latest.

    Args:
        console: Where it shows; standard error, so that it never mixes with results.
        quiet: Show nothing.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._status: Status | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.done()

    def say(self, text: str) -> None:
        """Begins a step; the one before is over."""
        if self._quiet:
            return
        if not self._console.is_terminal:
            self._console.print(f"… {text}", markup=False, soft_wrap=True)
        elif self._status is None:
            self._status = self._console.status(
                Text(text, style="dim"), refresh_per_second=_REFRESH_PER_SECOND
            )
            self._status.start()
        else:
            self._status.update(Text(text, style="dim"))

    def done(self) -> None:
        """Clears the spinner: from here on others write to the terminal. May be called again."""
        status, self._status = self._status, None
        if status is not None:
            status.stop()
            secs = time.monotonic() - self._began
            self._console.print(f"ready after {secs:.1f} s", style="dim")
