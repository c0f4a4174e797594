"""The documented frame classes: names, bases, parameters in order, defaults."""

from __future__ import annotations

import dataclasses
import inspect
import warnings

import pytest

from antiphon.frames import frames

# class: (bases, parameters with their defaults)
EXPECTED = {
    "Frame": ("object", ""),
    "SystemFrame": ("Frame", ""),
    "DataFrame": ("Frame", ""),
    "ControlFrame": ("Frame", ""),
    "AudioRawFrame": ("object", "audio, sample_rate, num_channels"),
    "ImageRawFrame": ("object", "image, size, format"),
    "OutputAudioRawFrame": ("DataFrame AudioRawFrame", "audio, sample_rate, num_channels"),
    "OutputImageRawFrame": ("DataFrame ImageRawFrame", "image, size, format"),
    "TTSAudioRawFrame": ("OutputAudioRawFrame", "audio, sample_rate, num_channels"),
    "SpeechOutputAudioRawFrame": ("OutputAudioRawFrame", "audio, sample_rate, num_channels"),
    "URLImageRawFrame": ("OutputImageRawFrame", "image, size, format, url=None"),
    "SpriteFrame": ("DataFrame", "images"),
    "TextFrame": ("DataFrame", "text"),
    "LLMTextFrame": ("TextFrame", "text"),
    "TTSTextFrame": ("TextFrame", "text"),
    "TranscriptionFrame": ("TextFrame", "text, user_id, timestamp, language=None, result=None"),
    "InterimTranscriptionFrame": (
        "TextFrame",
        "text, user_id, timestamp, language=None, result=None",
    ),
    "TranslationFrame": ("TextFrame", "text, user_id, timestamp, language=None"),
    "OpenAILLMContextAssistantTimestampFrame": ("DataFrame", "timestamp"),
    "TranscriptionMessage": ("object", "role, content, user_id=None, timestamp=None"),
    "TranscriptionUpdateFrame": ("DataFrame", "messages"),
    "LLMMessagesFrame": ("DataFrame", "messages"),
    "LLMMessagesAppendFrame": ("DataFrame", "messages, run_llm=None"),
    "LLMMessagesUpdateFrame": ("DataFrame", "messages, run_llm=None"),
    "LLMSetToolsFrame": ("DataFrame", "tools"),
    "LLMSetToolChoiceFrame": ("DataFrame", "tool_choice"),
    "LLMEnablePromptCachingFrame": ("DataFrame", "enable"),
    "TTSSpeakFrame": ("DataFrame", "text"),
    "TransportMessageFrame": ("DataFrame", "message"),
    "DTMFFrame": ("object", "button"),
    "OutputDTMFFrame": ("DTMFFrame DataFrame", "button"),
    "StartFrame": (
        "SystemFrame",
        "audio_in_sample_rate=16000, audio_out_sample_rate=24000, allow_interruptions=False, enable_metrics=False, enable_tracing=False, enable_usage_metrics=False, interruption_strategies=[], report_only_initial_ttfb=False",
    ),
    "CancelFrame": ("SystemFrame", ""),
    "ErrorFrame": ("SystemFrame", "error, fatal=False, processor=None"),
    "FatalErrorFrame": ("ErrorFrame", "error, processor=None"),
    "EndTaskFrame": ("SystemFrame", ""),
    "CancelTaskFrame": ("SystemFrame", ""),
    "StopTaskFrame": ("SystemFrame", ""),
    "FrameProcessorPauseUrgentFrame": ("SystemFrame", "processor"),
    "FrameProcessorResumeUrgentFrame": ("SystemFrame", "processor"),
    "StartInterruptionFrame": ("SystemFrame", ""),
    "StopInterruptionFrame": ("SystemFrame", ""),
    "UserStartedSpeakingFrame": ("SystemFrame", "emulated=False"),
    "UserStoppedSpeakingFrame": ("SystemFrame", "emulated=False"),
    "EmulateUserStartedSpeakingFrame": ("SystemFrame", ""),
    "EmulateUserStoppedSpeakingFrame": ("SystemFrame", ""),
    "VADUserStartedSpeakingFrame": ("SystemFrame", ""),
    "VADUserStoppedSpeakingFrame": ("SystemFrame", ""),
    "BotInterruptionFrame": ("SystemFrame", ""),
    "BotStartedSpeakingFrame": ("SystemFrame", ""),
    "BotStoppedSpeakingFrame": ("SystemFrame", ""),
    "BotSpeakingFrame": ("SystemFrame", ""),
    "MetricsFrame": ("SystemFrame", "data"),
    "FunctionCallFromLLM": ("object", "function_name, tool_call_id, arguments, context"),
    "FunctionCallsStartedFrame": ("SystemFrame", "function_calls"),
    "FunctionCallInProgressFrame": (
        "SystemFrame",
        "function_name, tool_call_id, arguments, cancel_on_interruption=False",
    ),
    "FunctionCallCancelFrame": ("SystemFrame", "function_name, tool_call_id"),
    "FunctionCallResultProperties": ("object", "run_llm=None, on_context_updated=None"),
    "FunctionCallResultFrame": (
        "SystemFrame",
        "function_name, tool_call_id, arguments, result, run_llm=None, properties=None",
    ),
    "STTMuteFrame": ("SystemFrame", "mute"),
    "TransportMessageUrgentFrame": ("SystemFrame", "message"),
    "UserImageRequestFrame": (
        "SystemFrame",
        "user_id, context=None, function_name=None, tool_call_id=None, video_source=None",
    ),
    "InputAudioRawFrame": ("SystemFrame AudioRawFrame", "audio, sample_rate, num_channels"),
    "InputImageRawFrame": ("SystemFrame ImageRawFrame", "image, size, format"),
    "InputTextRawFrame": ("SystemFrame TextFrame", "text"),
    "UserAudioRawFrame": ("InputAudioRawFrame", "audio, sample_rate, num_channels, user_id=''"),
    "UserImageRawFrame": ("InputImageRawFrame", "image, size, format, user_id='', request=None"),
    "VisionImageRawFrame": ("InputImageRawFrame", "image, size, format, text=None"),
    "InputDTMFFrame": ("DTMFFrame SystemFrame", "button"),
    "OutputDTMFUrgentFrame": ("DTMFFrame SystemFrame", "button"),
    "SpeechControlParamsFrame": ("SystemFrame", "vad_params=None, turn_params=None"),
    "EndFrame": ("ControlFrame", ""),
    "StopFrame": ("ControlFrame", ""),
    "OutputTransportReadyFrame": ("ControlFrame", ""),
    "HeartbeatFrame": ("ControlFrame", "timestamp"),
    "FrameProcessorPauseFrame": ("ControlFrame", "processor"),
    "FrameProcessorResumeFrame": ("ControlFrame", "processor"),
    "LLMFullResponseStartFrame": ("ControlFrame", ""),
    "LLMFullResponseEndFrame": ("ControlFrame", ""),
    "TTSStartedFrame": ("ControlFrame", ""),
    "TTSStoppedFrame": ("ControlFrame", ""),
    "ServiceUpdateSettingsFrame": ("ControlFrame", "settings"),
    "LLMUpdateSettingsFrame": ("ServiceUpdateSettingsFrame", "settings"),
    "TTSUpdateSettingsFrame": ("ServiceUpdateSettingsFrame", "settings"),
    "STTUpdateSettingsFrame": ("ServiceUpdateSettingsFrame", "settings"),
    "VADParamsUpdateFrame": ("ControlFrame", "params"),
    "FilterControlFrame": ("ControlFrame", ""),
    "FilterUpdateSettingsFrame": ("FilterControlFrame", "settings"),
    "FilterEnableFrame": ("FilterControlFrame", "enable"),
    "MixerControlFrame": ("ControlFrame", ""),
    "MixerUpdateSettingsFrame": ("MixerControlFrame", "settings"),
    "MixerEnableFrame": ("MixerControlFrame", "enable"),
}
# Takes a mapping, keywords, or both.
SETTINGS = {
    "ServiceUpdateSettingsFrame",
    "LLMUpdateSettingsFrame",
    "TTSUpdateSettingsFrame",
    "STTUpdateSettingsFrame",
}


def _parameters(cls: type) -> str:
    parts = []
    for parameter in inspect.signature(cls).parameters.values():
        default = parameter.default
        if default is parameter.empty:
            parts.append(parameter.name)
        elif "factory" in repr(default):
            parts.append(f"{parameter.name}=[]")
        else:
            parts.append(f"{parameter.name}={default!r}")
    return ", ".join(parts)


def test_page_lists_exactly_the_expected_names() -> None:
    assert set(frames.__all__) == {*EXPECTED, "KeypadEntry", "format_pts"}


@pytest.mark.parametrize("name", EXPECTED)
def test_class(name: str) -> None:
    cls = getattr(frames, name)
    bases, parameters = EXPECTED[name]
    assert " ".join(base.__name__ for base in cls.__bases__) == bases
    if name not in SETTINGS:
        assert _parameters(cls) == parameters
    assert dataclasses.is_dataclass(cls)
    assert cls.__doc__
    assert not cls.__doc__.startswith(name), "the docstring is the generated one"


@pytest.mark.parametrize("name", EXPECTED)
def test_common_attributes_are_no_parameters(name: str) -> None:
    cls = getattr(frames, name)
    common = ["id", "name", "pts", "metadata", "transport_source", "transport_destination"]
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if issubclass(cls, frames.Frame):
        assert [n for n in fields if n in common] == common
        assert not any(fields[n].init for n in common)


def test_keypad_entries() -> None:
    assert {entry.name: entry.value for entry in frames.KeypadEntry} == {
        "ONE": "1",
        "TWO": "2",
        "THREE": "3",
        "FOUR": "4",
        "FIVE": "5",
        "SIX": "6",
        "SEVEN": "7",
        "EIGHT": "8",
        "NINE": "9",
        "ZERO": "0",
        "POUND": "#",
        "STAR": "*",
    }
    assert frames.KeypadEntry("1") == "1"


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_settings_come_as_mapping_or_keywords(name: str) -> None:
    cls = getattr(frames, name)
    settings = {"voice": "a"}
    assert cls(settings).settings is settings
    assert cls(settings=settings).settings is settings
    assert cls(voice="a", speed=2).settings == {"voice": "a", "speed": 2}
    assert cls(settings, speed=2).settings == {"voice": "a", "speed": 2}
    assert settings == {"voice": "a"}
    assert cls({}).settings == {}
    with pytest.raises(TypeError, match=name):
        cls()


def test_fatal_error_is_always_fatal() -> None:
    assert frames.FatalErrorFrame("broken").fatal is True
    assert frames.ErrorFrame("odd").fatal is False


def test_num_frames_counts_samples_per_channel() -> None:
    assert frames.InputAudioRawFrame(bytes(640), 16000, 1).num_frames == 320
    assert frames.OutputAudioRawFrame(bytes(640), 16000, 2).num_frames == 160
    assert frames.UserAudioRawFrame(bytes(6), 16000, 1, "me").num_frames == 3
    assert frames.AudioRawFrame(bytes(5), 16000, 1).num_frames == 2


def test_interruption_strategies_are_not_shared() -> None:
    assert (
        frames.StartFrame().interruption_strategies
        is not frames.StartFrame().interruption_strategies
    )


def test_end_and_stop_survive_an_interruption() -> None:
    surviving = {
        name for name in EXPECTED if getattr(getattr(frames, name), "survives_interruption", False)
    }
    assert surviving == {"EndFrame", "StopFrame"}


def test_messages_frame_warns_at_the_line_of_its_maker() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frames.LLMMessagesFrame([])
    assert [w.category for w in caught] == [DeprecationWarning]
    assert caught[0].filename == __file__


def _named(frame: frames.Frame, pts: int | None = None) -> str:
    frame.name = "F"
    frame.pts = pts
    return str(frame)


def test_texts_for_logs() -> None:
    request = frames.UserImageRequestFrame("u", None, "look", "call")
    request.name = "R"
    assert _named(frames.EndFrame()) == "F"
    assert _named(frames.TextFrame("hi"), 1_500_000_000) == "F(pts: 0:00:01.500000, text: [hi])"
    assert _named(frames.InputTextRawFrame("hi")) == "F(pts: None, source: None, text: [hi])"
    assert _named(frames.TranscriptionFrame("hi", "u", "now")) == (
        "F(user: u, text: [hi], language: None, timestamp: now)"
    )
    assert _named(frames.OutputAudioRawFrame(bytes(4), 8000, 1)) == (
        "F(pts: None, destination: None, size: 4, frames: 2, sample_rate: 8000, channels: 1)"
    )
    assert _named(frames.UserAudioRawFrame(bytes(4), 8000, 1, "u")) == (
        "F(pts: None, user: u, source: None, size: 4, frames: 2, sample_rate: 8000, channels: 1)"
    )
    assert _named(frames.UserImageRawFrame(b"", (1, 2), "RGB", "u", request)) == (
        "F(pts: None, user: u, source: None, size: (1, 2), format: RGB, "
        "request: R(user: u, video_source: None, function: look, request: call))"
    )
    assert _named(frames.URLImageRawFrame(b"", (1, 2), None, "http://x")) == (
        "F(pts: None, url: http://x, size: (1, 2), format: None)"
    )
    assert _named(frames.SpriteFrame([])) == "F(pts: None, size: 0)"
    assert _named(frames.TranscriptionUpdateFrame([])) == "F(pts: None, messages: 0)"
    assert _named(frames.TransportMessageFrame({"a": 1})) == "F(message: {'a': 1})"
    assert _named(frames.ErrorFrame("odd")) == "F(error: odd, fatal: False)"


@pytest.mark.parametrize(
    ("pts", "text"),
    [
        (None, None),
        (0, None),
        (999, "0:00:00.000000"),
        (1_500_000_000, "0:00:01.500000"),
        (3_661_123_456_789, "1:01:01.123456"),
        (360_000 * 10**9, "100:00:00.000000"),
    ],
)
def test_format_pts(pts: int | None, text: str | None) -> None:
    assert frames.format_pts(pts) == text
