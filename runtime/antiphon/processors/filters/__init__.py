"""Processors that let some frames through and others not."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.processors.filters.frame_filter import FrameFilter
    from antiphon.processors.filters.function_filter import FunctionFilter
    from antiphon.processors.filters.identity_filter import IdentityFilter
    from antiphon.processors.filters.null_filter import NullFilter
    from antiphon.processors.filters.stt_mute_filter import (
        STTMuteConfig,
        STTMuteFilter,
        STTMuteStrategy,
    )
    from antiphon.processors.filters.wake_check_filter import WakeCheckFilter
    from antiphon.processors.filters.wake_notifier_filter import WakeNotifierFilter

__all__ = [
    "FrameFilter",
    "FunctionFilter",
    "IdentityFilter",
    "NullFilter",
    "STTMuteConfig",
    "STTMuteFilter",
    "STTMuteStrategy",
    "WakeCheckFilter",
    "WakeNotifierFilter",
]

_MODULES = {
    "FrameFilter": "frame_filter",
    "FunctionFilter": "function_filter",
    "IdentityFilter": "identity_filter",
    "NullFilter": "null_filter",
    "STTMuteConfig": "stt_mute_filter",
    "STTMuteFilter": "stt_mute_filter",
    "STTMuteStrategy": "stt_mute_filter",
    "WakeCheckFilter": "wake_check_filter",
    "WakeNotifierFilter": "wake_notifier_filter",
}


def __getattr__(name: str) -> Any:
    # At first use: a bot that needs one filter does not pay for the others.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
