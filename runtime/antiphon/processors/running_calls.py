"""Which of the language model's function calls are running."""

from __future__ import annotations

from antiphon.frames.frames import (
    Frame,
    FunctionCallCancelFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    StartInterruptionFrame,
)


class RunningCalls:
    """Follows the frames of function calls; true while any call runs."""

    def __init__(self) -> None:
        """Begins without calls."""
        # By id; the value: whether an interruption cancels the call. As many as run at a time.
        self._calls: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def clear(self) -> None:
        """Forgets the calls."""
        self._calls.clear()

    def follow(self, frame: Frame) -> None:
        """Takes notice of a frame; most mean nothing here."""
        if isinstance(frame, FunctionCallInProgressFrame):
            self._calls[frame.tool_call_id] = frame.cancel_on_interruption
        elif isinstance(frame, (FunctionCallResultFrame, FunctionCallCancelFrame)):
            self._calls.pop(frame.tool_call_id, None)
        elif isinstance(frame, StartInterruptionFrame):
            # Not every processor sees the frames that tell of each cancelled call.
            self._calls = {key: cancel for key, cancel in self._calls.items() if not cancel}
