"""The numbers on the wire: nothing here may ever change, only be added to."""

from __future__ import annotations

import dataclasses

import pytest

from antiphon.frames import frames
from antiphon.frames._extensions import (
    ARRAY,
    FRAME,
    FROZENSET,
    INTEGER,
    REFERENCE,
    SCALAR,
    SET,
    TUPLE,
    VALUE,
)
from antiphon.frames._kinds import FRAME_KINDS, VALUE_KINDS
from antiphon.frames._plan import COMMON

PINNED = {
    1: ("InputAudioRawFrame", "audio sample_rate num_channels num_frames"),
    2: ("UserAudioRawFrame", "audio sample_rate num_channels num_frames user_id"),
    3: ("TTSAudioRawFrame", "audio sample_rate num_channels num_frames"),
    4: ("OutputAudioRawFrame", "audio sample_rate num_channels num_frames"),
    5: ("SpeechOutputAudioRawFrame", "audio sample_rate num_channels num_frames"),
    6: ("TextFrame", "text"),
    7: ("LLMTextFrame", "text"),
    8: ("TTSTextFrame", "text"),
    9: ("TranscriptionFrame", "text user_id timestamp language result"),
    10: ("InterimTranscriptionFrame", "text user_id timestamp language result"),
    11: ("BotSpeakingFrame", ""),
    12: ("HeartbeatFrame", "timestamp"),
    13: ("MetricsFrame", "data"),
    14: ("Frame", ""),
    15: ("SystemFrame", ""),
    16: ("DataFrame", ""),
    17: ("ControlFrame", ""),
    18: ("OutputImageRawFrame", "image size format"),
    19: ("URLImageRawFrame", "image size format url"),
    20: ("SpriteFrame", "images"),
    21: ("TranslationFrame", "text user_id timestamp language"),
    22: ("OpenAILLMContextAssistantTimestampFrame", "timestamp"),
    23: ("TranscriptionUpdateFrame", "messages"),
    24: ("LLMMessagesFrame", "messages"),
    25: ("LLMMessagesAppendFrame", "messages run_llm"),
    26: ("LLMMessagesUpdateFrame", "messages run_llm"),
    27: ("LLMSetToolsFrame", "tools"),
    28: ("LLMSetToolChoiceFrame", "tool_choice"),
    29: ("LLMEnablePromptCachingFrame", "enable"),
    30: ("TTSSpeakFrame", "text"),
    31: ("TransportMessageFrame", "message"),
    32: ("OutputDTMFFrame", "button"),
    33: (
        "StartFrame",
        "audio_in_sample_rate audio_out_sample_rate allow_interruptions enable_metrics enable_tracing enable_usage_metrics interruption_strategies report_only_initial_ttfb",
    ),
    34: ("CancelFrame", ""),
    35: ("ErrorFrame", "error fatal processor"),
    36: ("FatalErrorFrame", "error fatal processor"),
    37: ("EndTaskFrame", ""),
    38: ("CancelTaskFrame", ""),
    39: ("StopTaskFrame", ""),
    40: ("FrameProcessorPauseUrgentFrame", "processor"),
    41: ("FrameProcessorResumeUrgentFrame", "processor"),
    42: ("StartInterruptionFrame", ""),
    43: ("StopInterruptionFrame", ""),
    44: ("UserStartedSpeakingFrame", "emulated"),
    45: ("UserStoppedSpeakingFrame", "emulated"),
    46: ("EmulateUserStartedSpeakingFrame", ""),
    47: ("EmulateUserStoppedSpeakingFrame", ""),
    48: ("VADUserStartedSpeakingFrame", ""),
    49: ("VADUserStoppedSpeakingFrame", ""),
    50: ("BotInterruptionFrame", ""),
    51: ("BotStartedSpeakingFrame", ""),
    52: ("BotStoppedSpeakingFrame", ""),
    53: ("FunctionCallsStartedFrame", "function_calls"),
    54: (
        "FunctionCallInProgressFrame",
        "function_name tool_call_id arguments cancel_on_interruption",
    ),
    55: ("FunctionCallCancelFrame", "function_name tool_call_id"),
    56: (
        "FunctionCallResultFrame",
        "function_name tool_call_id arguments result run_llm properties",
    ),
    57: ("STTMuteFrame", "mute"),
    58: ("TransportMessageUrgentFrame", "message"),
    59: ("UserImageRequestFrame", "user_id context function_name tool_call_id video_source"),
    60: ("InputImageRawFrame", "image size format"),
    61: ("InputTextRawFrame", "text"),
    62: ("UserImageRawFrame", "image size format user_id request"),
    63: ("VisionImageRawFrame", "image size format text"),
    64: ("InputDTMFFrame", "button"),
    65: ("OutputDTMFUrgentFrame", "button"),
    66: ("SpeechControlParamsFrame", "vad_params turn_params"),
    67: ("EndFrame", ""),
    68: ("StopFrame", ""),
    69: ("OutputTransportReadyFrame", ""),
    70: ("FrameProcessorPauseFrame", "processor"),
    71: ("FrameProcessorResumeFrame", "processor"),
    72: ("LLMFullResponseStartFrame", ""),
    73: ("LLMFullResponseEndFrame", ""),
    74: ("TTSStartedFrame", ""),
    75: ("TTSStoppedFrame", ""),
    76: ("ServiceUpdateSettingsFrame", "settings"),
    77: ("LLMUpdateSettingsFrame", "settings"),
    78: ("TTSUpdateSettingsFrame", "settings"),
    79: ("STTUpdateSettingsFrame", "settings"),
    80: ("VADParamsUpdateFrame", "params"),
    81: ("FilterControlFrame", ""),
    82: ("FilterUpdateSettingsFrame", "settings"),
    83: ("FilterEnableFrame", "enable"),
    84: ("MixerControlFrame", ""),
    85: ("MixerUpdateSettingsFrame", "settings"),
    86: ("MixerEnableFrame", "enable"),
}


def test_frame_kinds_are_pinned() -> None:
    assert FRAME_KINDS == PINNED


def test_value_kinds_are_pinned() -> None:
    assert VALUE_KINDS == {
        1: "KeypadEntry",
        2: "TranscriptionMessage",
        3: "FunctionCallFromLLM",
        4: "FunctionCallResultProperties",
        5: "AudioRawFrame",
        6: "ImageRawFrame",
        7: "DTMFFrame",
        8: "datetime",
        9: "date",
        10: "time",
        11: "timedelta",
        12: "UUID",
        13: "Decimal",
        14: "complex",
    }


def test_extension_types_are_pinned() -> None:
    codes = [TUPLE, SET, FROZENSET, INTEGER, ARRAY, SCALAR, FRAME, VALUE, REFERENCE]
    assert codes == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_every_frame_class_has_a_number() -> None:
    classes = {
        name
        for name in frames.__all__
        if isinstance(cls := getattr(frames, name), type) and issubclass(cls, frames.Frame)
    }
    assert {name for name, _ in FRAME_KINDS.values()} == classes
    assert len(FRAME_KINDS) == len(classes)


@pytest.mark.parametrize(("name", "fields"), FRAME_KINDS.values())
def test_every_field_is_on_the_wire(name: str, fields: str) -> None:
    declared = {f.name for f in dataclasses.fields(getattr(frames, name))} - {*COMMON}
    assert len(fields.split()) == len(declared)
    assert set(fields.split()) == declared
