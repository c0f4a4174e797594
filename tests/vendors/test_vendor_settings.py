"""Translations of settings, times of words, errors, and where the services may run."""

from __future__ import annotations

import subprocess
import sys

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.services._vendor_errors import vendor_error
from antiphon.services.elevenlabs._speech import SpeechClock, SpokenWords, relative_times
from antiphon.services.elevenlabs.tts import (
    ElevenLabsHttpTTSService,
    ElevenLabsTTSService,
    build_elevenlabs_voice_settings,
    language_to_elevenlabs_language,
    output_format_from_sample_rate,
)
from antiphon.services.openai.stt import OpenAISTTService
from antiphon.services.openai.tts import OpenAITTSService
from antiphon.services.whisper.base_stt import language_to_whisper_language
from antiphon.transcriptions.language import Language
from antiphon_actors.placement.movability import Unmovable, pickle_blueprint, unpickle_blueprint


def test_languages_and_their_regions() -> None:
    assert language_to_elevenlabs_language(Language.EN) == "en"
    assert language_to_elevenlabs_language(Language.PT_BR) == "pt"
    assert language_to_elevenlabs_language(Language.FIL) == "fil"
    assert language_to_elevenlabs_language(Language.CY) is None
    assert language_to_whisper_language(Language.CY_GB) == "cy"
    assert language_to_whisper_language(Language.EN_US) == "en"
    assert language_to_whisper_language(Language.FIL) is None
    documented = {language_to_elevenlabs_language(language) for language in Language} - {None}
    assert len(documented) == 32
    assert len({language_to_whisper_language(language) for language in Language} - {None}) == 57


@pytest.mark.parametrize(
    ("rate_hz", "name"),
    [(8000, "pcm_8000"), (16000, "pcm_16000"), (44100, "pcm_44100"), (48000, "pcm_24000")],
)
def test_rates(rate_hz: int, name: str) -> None:
    assert output_format_from_sample_rate(rate_hz) == name


def test_voice_settings_are_those_that_were_set() -> None:
    assert build_elevenlabs_voice_settings({"stability": None, "language": "en"}) is None
    settings = {"stability": 0.0, "use_speaker_boost": False, "auto_mode": True}
    assert build_elevenlabs_voice_settings(settings) == {
        "stability": 0.0,
        "use_speaker_boost": False,
    }


@given(st.text(alphabet="ab .\n", max_size=40), st.lists(st.integers(1, 5), max_size=40))
def test_words_come_out_whole_however_they_are_cut(text: str, sizes: list[int]) -> None:
    words = SpokenWords()
    found: list[tuple[str, int]] = []
    at = 0
    for size in [*sizes, len(text)]:
        part = text[at : at + size]
        found += words.feed([(c, i * 0.5) for i, c in enumerate(part)], at * 500_000_000)
        at += len(part)
    found += words.finish()
    assert [word for word, _ in found] == text.split()
    for word, start_ns in found:
        assert text[start_ns // 500_000_000 :].startswith(word)
    assert words.finish() == []


def test_audio_plays_behind_the_audio_before_it_or_now() -> None:
    clock = SpeechClock()
    assert clock.begin(1_000) == 1_000
    clock.add(32_000, 16_000)
    assert clock.begin(2_000) == 1_000_001_000
    assert clock.begin(5_000_000_000) == 5_000_000_000
    clock.add(32_000, 16_000)
    clock.reset()
    assert clock.begin(5_000_000_001) == 5_000_000_001


def test_no_word_is_taken_for_a_mark() -> None:
    assert all(secs > 0 for _, secs in relative_times([("Reset", 5), ("all", 7)], 5))


def test_errors_say_whether_trying_again_helps() -> None:
    limited = vendor_error("OpenAI", status=429, code="rate_limit_exceeded", retry_after="2.5")
    assert limited.retryable
    assert limited.retry_after == 2.5
    assert (limited.provider, limited.status) == ("openai", 429)
    dated = vendor_error("OpenAI", status=503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")
    assert dated.retryable
    assert dated.retry_after is None
    refused = vendor_error("ElevenLabs", status=401, code="what was said: 'hello'")
    assert not refused.retryable
    assert "hello" not in str(refused)
    assert vendor_error("ElevenLabs").retryable


def test_the_services_may_run_elsewhere() -> None:
    for service in (
        ElevenLabsTTSService(
            api_key="k",
            voice_id="v",
            params=ElevenLabsTTSService.InputParams(language=Language.DE),
        ),
        ElevenLabsHttpTTSService(api_key="k", voice_id="v"),
        OpenAITTSService(api_key="k"),
        OpenAISTTService(api_key="k"),
    ):
        assert type(service).movable
        blueprint = unpickle_blueprint(pickle_blueprint(service))
        again = blueprint.cls(*blueprint.args, **blueprint.kwargs)
        assert again.model_name == service.model_name


async def test_a_service_with_the_bots_own_connections_stays() -> None:
    async with aiohttp.ClientSession() as session:
        service = ElevenLabsHttpTTSService(api_key="k", voice_id="v", aiohttp_session=session)
        with pytest.raises(Unmovable):
            pickle_blueprint(service)


def test_importing_and_constructing_loads_no_vendors_library() -> None:
    code = """
import sys
from antiphon.services.elevenlabs.tts import ElevenLabsHttpTTSService, ElevenLabsTTSService
from antiphon.services.openai.stt import OpenAISTTService
from antiphon.services.openai.tts import OpenAITTSService
ElevenLabsTTSService(api_key="k", voice_id="v")
ElevenLabsHttpTTSService(api_key="k", voice_id="v")
OpenAITTSService(api_key="k")
OpenAISTTService(api_key="k")
print(sorted({"openai", "elevenlabs", "websockets", "aiohttp"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.strip() == "[]"
