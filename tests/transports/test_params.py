from __future__ import annotations

import pytest

from antiphon.transports.base_output import BaseOutputTransport
from antiphon.transports.base_output_transport import BaseOutputTransport as DocumentedName
from antiphon.transports.base_transport import TransportParams


def test_defaults_are_the_documented_ones() -> None:
    params = TransportParams()
    assert not params.audio_in_enabled
    assert not params.audio_out_enabled
    assert params.audio_in_passthrough
    assert params.audio_out_10ms_chunks == 4
    assert (params.video_out_width, params.video_out_height) == (1024, 768)
    assert params.audio_out_destinations == []


def test_older_names_set_the_newer_ones() -> None:
    with pytest.warns(DeprecationWarning, match="camera_out_width"):
        params = TransportParams(camera_out_width=320)
    assert params.video_out_width == 320
    with pytest.warns(DeprecationWarning, match="vad_enabled"):
        assert TransportParams(vad_enabled=True).audio_in_enabled


def test_a_newer_name_wins_over_the_older_one() -> None:
    assert TransportParams(camera_out_width=320, video_out_width=640).video_out_width == 640


def test_switching_an_older_flag_off_changes_nothing() -> None:
    assert TransportParams(vad_audio_passthrough=False).audio_in_passthrough


def test_documented_module_names() -> None:
    assert DocumentedName is BaseOutputTransport
