"""Frames that change the settings of services, audio filters and mixers while they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from antiphon.frames._base import ControlFrame


@dataclass(init=False)
class ServiceUpdateSettingsFrame(ControlFrame):
    """Changes settings of a service.

    The settings come as one mapping or as keywords: `TTSUpdateSettingsFrame({"voice": "a"})`
    and `TTSUpdateSettingsFrame(voice="a")` are the same.

    Attributes:
        settings: The new values by name; what is not named stays.
    """

    settings: Mapping[str, Any]

    is_setting: ClassVar[bool] = True

    def __init__(self, settings: Mapping[str, Any] | None = None, **values: Any) -> None:
        """Takes the settings.

        Args:
            settings: The new values by name.
            **values: The same as keywords; they win over `settings`.

        Raises:
            TypeError: There is neither.
        """
        if settings is None:
            if not values:
                raise TypeError(f"{type(self).__name__} needs settings")
            settings = values
        elif values:
            settings = {**settings, **values}
        self.settings = settings
        self.__post_init__()


@dataclass(init=False)
class LLMUpdateSettingsFrame(ServiceUpdateSettingsFrame):
    """Changes settings of a language model service."""


@dataclass(init=False)
class TTSUpdateSettingsFrame(ServiceUpdateSettingsFrame):
    """Changes settings of a text-to-speech service."""


@dataclass(init=False)
class STTUpdateSettingsFrame(ServiceUpdateSettingsFrame):
    """Changes settings of a speech-to-text service."""


@dataclass
class FilterControlFrame(ControlFrame):
    """Base of the frames for audio filters."""


@dataclass
class FilterUpdateSettingsFrame(FilterControlFrame):
    """Changes settings of an audio filter.

    Attributes:
        settings: The new values by name.
    """

    settings: Mapping[str, Any]


@dataclass
class FilterEnableFrame(FilterControlFrame):
    """Turns an audio filter on or off.

    Attributes:
        enable: On or off.
    """

    enable: bool


@dataclass
class MixerControlFrame(ControlFrame):
    """Base of the frames for audio mixers."""


@dataclass
class MixerUpdateSettingsFrame(MixerControlFrame):
    """Changes settings of an audio mixer.

    Attributes:
        settings: The new values by name.
    """

    settings: Mapping[str, Any]


@dataclass
class MixerEnableFrame(MixerControlFrame):
    """Turns an audio mixer on or off.

    Attributes:
        enable: On or off.
    """

    enable: bool
