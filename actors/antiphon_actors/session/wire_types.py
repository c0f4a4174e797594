"""The classes whose values travel inside frames.

A type is known to the codec of a process once its module is imported there; both ends of a link
have to know the same ones, whichever processors they host. Those of the framework are imported
here. Those of a bot are pickled at home and travel with what an actor is told about a session.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cloudpickle
from loguru import logger

import antiphon.adapters.schemas.tools_schema
import antiphon.audio.turn.smart_turn.base_smart_turn
import antiphon.audio.vad.vad_analyzer
import antiphon.flows.frames
import antiphon.metrics.metrics
import antiphon.processors.aggregators.openai_llm_context
import antiphon.processors.frameworks.rtvi
import antiphon.processors.passing
import antiphon.services.google.frames
import antiphon.services.llm_service
import antiphon.transcriptions.language  # noqa: F401
from antiphon.frames import _registry as registry
from antiphon.frames.codec import register_type
from antiphon.processors.frame_processor import FrameDirection

# Bots push frames on processors that run elsewhere.
register_type(FrameDirection)


def pickle_bot_classes() -> list[bytes]:
    """The classes defined outside the framework, for actors to know them.

    One that cannot be pickled is left out: only a frame that needs it would be refused there.
    """
    found: list[tuple[type[Any], registry.ValueType | None]] = [
        *((cls, None) for cls in registry.program_frame_classes()),
        *registry.program_value_types(),
    ]
    pickled = []
    for cls, entry in found:
        try:
            pickled.append(cloudpickle.dumps((cls, entry)))
        except Exception as error:  # noqa: BLE001 - whatever the bot's classes raise
            logger.debug("class cannot travel", cls=registry.wire_name(cls), error=repr(error))
    return pickled


def adopt_bot_classes(pickled: Sequence[bytes]) -> dict[str, type[Any]]:
    """Makes classes that pickle_bot_classes() gave known here; only for data of a supervisor.

    Returns:
        The classes by their name on the wire.
    """
    classes: dict[str, type[Any]] = {}
    for data in pickled:
        try:
            cls, entry = cloudpickle.loads(data)
            if entry is not None:  # defining a frame class is all it needs
                registry.adopt_value_type(cls, entry)
        except Exception as error:  # noqa: BLE001 - whatever importing the bot's modules raises
            logger.debug("class of the bot is not known here", error=repr(error))
            continue
        key = registry.wire_name(cls) if entry is None else entry.key
        if isinstance(key, str):
            classes[key] = cls
    return classes
