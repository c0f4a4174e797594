"""Frames about who speaks, interruptions, and the detection of speech."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from antiphon.frames._base import ControlFrame, SystemFrame

if TYPE_CHECKING:
    from antiphon.audio.turn.smart_turn.base_smart_turn import SmartTurnParams
    from antiphon.audio.vad.vad_analyzer import VADParams


@dataclass
class StartInterruptionFrame(SystemFrame):
    """Makes every processor drop what it is doing, because the user began to speak."""


@dataclass
class StopInterruptionFrame(SystemFrame):
    """Tells that the user who interrupted has stopped speaking."""


@dataclass
class BotInterruptionFrame(SystemFrame):
    """Asks, upstream, that the bot be interrupted without the user having spoken."""


@dataclass
class UserStartedSpeakingFrame(SystemFrame):
    """Tells that the user's turn has begun.

    Attributes:
        emulated: Whether text, rather than detected speech, gave rise to it.
    """

    emulated: bool = False


@dataclass
class UserStoppedSpeakingFrame(SystemFrame):
    """Tells that the user's turn has ended.

    Attributes:
        emulated: Whether text, rather than detected speech, gave rise to it.
    """

    emulated: bool = False


@dataclass
class EmulateUserStartedSpeakingFrame(SystemFrame):
    """Asks the input transport to act as if speech had begun."""


@dataclass
class EmulateUserStoppedSpeakingFrame(SystemFrame):
    """Asks the input transport to act as if speech had ended."""


@dataclass
class VADUserStartedSpeakingFrame(SystemFrame):
    """Tells that voice activity detection hears speech."""


@dataclass
class VADUserStoppedSpeakingFrame(SystemFrame):
    """Tells that voice activity detection hears speech no more."""


@dataclass
class BotStartedSpeakingFrame(SystemFrame):
    """Tells that the output transport begins to play the bot's speech."""


@dataclass
class BotStoppedSpeakingFrame(SystemFrame):
    """Tells that the output transport has played the bot's speech."""


@dataclass
class BotSpeakingFrame(SystemFrame):
    """Tells, again and again, that the output transport is playing the bot's speech.

    It keeps timers from running out on a user who is listening.
    """


@dataclass
class STTMuteFrame(SystemFrame):
    """Mutes or unmutes speech recognition.

    Attributes:
        mute: True to mute.
    """

    mute: bool

    is_setting: ClassVar[bool] = True


@dataclass
class SpeechControlParamsFrame(SystemFrame):
    """Announces how the input transport detects speech and turns.

    Attributes:
        vad_params: Settings of voice activity detection, if there is any.
        turn_params: Settings of the turn analyzer, if there is one.
    """

    vad_params: VADParams | None = None
    turn_params: SmartTurnParams | None = None


@dataclass
class VADParamsUpdateFrame(ControlFrame):
    """Changes the settings of voice activity detection; goes upstream to the input transport.

    Attributes:
        params: The new settings.
    """

    params: VADParams


@dataclass
class TTSStartedFrame(ControlFrame):
    """Begins a speech service's answer; the audio frames up to the stop frame belong to it."""


@dataclass
class TTSStoppedFrame(ControlFrame):
    """Ends a speech service's answer."""
