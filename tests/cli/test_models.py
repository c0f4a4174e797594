"""``antiphon models`` against a hub on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.support import CommandLine
from tests.models.hub import FakeHub

_TINY = "Systran/faster-whisper-tiny"
_VOICES = "rhasspy/piper-voices"
_VOICE = "en/en_US/amy/low/en_US-amy-low.onnx"
_WEIGHTS = bytes(range(256)) * 1200


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    whisper = {"config.json": b"{}", "tokenizer.json": b"[]", "model.bin": _WEIGHTS}
    voices = {_VOICE: b"voice" * 300, f"{_VOICE}.json": b"{}"}
    with FakeHub({_TINY: whisper | {"vocabulary.txt": b"a"}, _VOICES: voices}) as hub:
        yield hub


@pytest.fixture
def environment(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hub"),
        "ANTIPHON_MODELS": str(tmp_path / "models"),
    }


def test_models_are_pulled_and_listed(
    antiphon: CommandLine, environment: dict[str, str], tmp_path: Path, hub: FakeHub
) -> None:
    none = antiphon.run("models", "list", environment=environment)
    assert none.code == 0
    assert "no models are here" in none.err

    pulled = antiphon.run("models", "pull", "tiny", "en_US-amy-low", environment=environment)
    assert (pulled.code, pulled.errors) == (0, [])
    folder = tmp_path / "models"
    assert f"tiny is in {folder / _TINY}" in pulled.err
    assert f"en_US-amy-low is in {(folder / _VOICES / _VOICE).parent}" in pulled.err
    assert (folder / _TINY / "model.bin").read_bytes() == _WEIGHTS
    assert hub.sent[-2:] == [f"{_VOICE}.json", _VOICE]

    requests = len(hub.sent)
    again = antiphon.run("models", "pull", "tiny", environment=environment)
    assert again.code == 0
    assert len(hub.sent) == requests

    listed = antiphon.run("models", "list", environment=environment)
    lines = [line.split() for line in listed.out.splitlines()]
    assert lines[0] == ["model", "kind", "size", "where"]
    assert [line[:2] for line in lines[1:]] == [["en_US-amy-low", "Piper"], ["tiny", "Whisper"]]
    assert lines[2][2:] == ["0", "MB", str(folder / _TINY)]


def test_a_pull_that_was_interrupted_goes_on(
    antiphon: CommandLine, environment: dict[str, str], tmp_path: Path, hub: FakeHub
) -> None:
    hub.cut_after = 100_000
    hub.hold.clear()
    running = antiphon.start("models", "pull", "tiny", environment=environment)
    assert hub.cutting.wait(30)
    running.signal()
    stopped = running.wait()
    hub.hold.set()
    hub.cut_after = None
    assert stopped.code == 130
    folder = tmp_path / "models" / _TINY
    assert not (folder / "model.bin").exists()
    (partial,) = folder.glob("model.bin.*.partial")
    here = partial.stat().st_size

    done = antiphon.run("models", "pull", "tiny", environment=environment)
    assert done.code == 0
    assert (folder / "model.bin").read_bytes() == _WEIGHTS
    assert hub.requests[-1][2] == (f"bytes={here}-" if here else None)


def test_what_cannot_be_pulled_is_one_message(
    antiphon: CommandLine, environment: dict[str, str], hub: FakeHub
) -> None:
    unknown = antiphon.run("models", "pull", "tiny", "huge", environment=environment)
    assert unknown.code == 1
    (error,) = unknown.errors
    assert "no model 'huge'" in error
    assert not hub.requests  # nothing was begun

    offline = antiphon.run(
        "models", "pull", "tiny", environment=environment | {"ANTIPHON_OFFLINE": "1"}
    )
    assert offline.code == 1
    assert "ANTIPHON_OFFLINE is set" in offline.errors[0]

    hub.wrong = {"model.bin"}
    wrong = antiphon.run("models", "pull", "tiny", environment=environment)
    assert wrong.code == 1
    assert "wrong checksum" in wrong.errors[0]
