"""Model files against a hub on this machine: first use, cut connections, wrong sums, two at once."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger
from tests.models.hub import FakeHub

from antiphon.errors import ConfigError, ServiceError
from antiphon.models import _hub, files
from antiphon.models.files import ModelFiles, Progress, ensure, find, pull

_REPO = "someone/a-model"
_MODEL = ModelFiles("small", _REPO, ("config.json", "deep/model.bin"), ("extra.json",))
_WEIGHTS = random.Random(1).randbytes(300_000)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.setattr(_hub, "_FIRST_PAUSE_SECS", 0.0)
    monkeypatch.setenv("ANTIPHON_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for variable in ("ANTIPHON_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    content = {"config.json": b"{}", "deep/model.bin": _WEIGHTS, "unwanted.bin": b"x"}
    with FakeHub({_REPO: content}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
        yield hub


def _here(tmp_path: Path) -> set[str]:
    root = tmp_path / "models" / _REPO
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()} - {".lock"}


async def test_a_model_is_downloaded_once(hub: FakeHub, tmp_path: Path) -> None:
    told: list[Progress] = []
    assert find(_MODEL) is None
    directory = await pull(_MODEL, told.append)
    assert directory == tmp_path / "models" / "someone" / "a-model"
    assert find(_MODEL) == directory
    assert (directory / "deep/model.bin").read_bytes() == _WEIGHTS
    assert _here(tmp_path) == {"config.json", "deep/model.bin"}
    assert hub.sent == ["config.json", "deep/model.bin"]  # the model itself last
    assert set(hub.authorizations) == {"Bearer hf_secret"}

    total = len(_WEIGHTS) + 2
    assert {progress.total_bytes for progress in told} == {total}
    done = [progress.done_bytes for progress in told]
    assert done == sorted(done)
    assert done[-1] == total

    assert ensure(_MODEL) == directory
    await pull(_MODEL)
    assert len(hub.sent) == 2


async def test_a_file_that_is_not_that_of_the_hub_is_replaced(hub: FakeHub, tmp_path: Path) -> None:
    directory = await pull(_MODEL)
    (directory / "deep/model.bin").write_bytes(b"old")
    await pull(_MODEL)
    assert (directory / "deep/model.bin").read_bytes() == _WEIGHTS
    assert hub.sent == ["config.json", "deep/model.bin", "deep/model.bin"]


async def test_optional_files_come_along(hub: FakeHub, tmp_path: Path) -> None:
    hub.files[_REPO]["extra.json"] = b"more"
    directory = await pull(_MODEL)
    assert (directory / "extra.json").read_bytes() == b"more"


async def test_a_connection_that_breaks_is_gone_on_with(hub: FakeHub, tmp_path: Path) -> None:
    hub.cut_after = 70_000
    directory = await pull(_MODEL)
    assert (directory / "deep/model.bin").read_bytes() == _WEIGHTS
    ranges = [asked for kind, path, asked in hub.requests if path.endswith("model.bin")]
    assert ranges == [None, "bytes=70000-", "bytes=140000-", "bytes=210000-", "bytes=280000-"]


async def test_a_download_that_was_cancelled_is_gone_on_with(hub: FakeHub, tmp_path: Path) -> None:
    hub.cut_after = 100_000
    hub.hold.clear()
    all_is_here = asyncio.Event()

    def look(progress: Progress) -> None:
        if progress.done_bytes >= 100_000:
            all_is_here.set()

    task = asyncio.create_task(pull(_MODEL, look))
    await all_is_here.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hub.hold.set()
    assert find(_MODEL) is None
    assert len(_here(tmp_path)) == 2  # a partial file beside what was complete

    hub.requests.clear()
    hub.cut_after = None
    directory = await pull(_MODEL)
    assert (directory / "deep/model.bin").read_bytes() == _WEIGHTS
    assert [asked for kind, _, asked in hub.requests if kind == "GET"] == ["bytes=100000-"]
    assert _here(tmp_path) == {"config.json", "deep/model.bin"}


async def test_a_hub_that_sends_nothing_is_given_up(hub: FakeHub) -> None:
    hub.cut_after = 0
    with pytest.raises(ServiceError, match=r"config\.json of someone/a-model.*goes on from there"):
        await pull(_MODEL)
    assert len(hub.sent) == 5


async def test_files_may_come_from_elsewhere_where_the_token_does_not_go(
    hub: FakeHub, tmp_path: Path
) -> None:
    with FakeHub(hub.files) as store:
        hub.redirect_to = store.url
        store.cut_after = 200_000
        directory = await pull(_MODEL)
    assert (directory / "deep/model.bin").read_bytes() == _WEIGHTS
    assert set(hub.authorizations) == {"Bearer hf_secret"}
    assert set(store.authorizations) == {None}
    assert [asked for _, _, asked in store.requests] == [None, None, "bytes=200000-"]


async def test_a_hub_without_ranges_begins_anew(hub: FakeHub, tmp_path: Path) -> None:
    hub.ignores_ranges = True
    partial = tmp_path / "models" / _REPO / "deep"
    partial.mkdir(parents=True)
    digest = hub.describe(_REPO, "deep/model.bin")["lfs"]["oid"]
    (partial / f"model.bin.{digest[:16]}.partial").write_bytes(_WEIGHTS[:1000])
    directory = await pull(_MODEL)
    assert (directory / "deep/model.bin").read_bytes() == _WEIGHTS


async def test_a_hub_without_ranges_that_breaks_off_is_given_up(hub: FakeHub) -> None:
    hub.ignores_ranges = True
    hub.cut_after = 1000
    with pytest.raises(ServiceError, match="did not send all of"):
        await pull(_MODEL)
    assert len(hub.sent) < 20


@pytest.mark.parametrize("path", ["config.json", "deep/model.bin"])
async def test_a_wrong_checksum_leaves_nothing(hub: FakeHub, tmp_path: Path, path: str) -> None:
    hub.wrong = {path}
    with pytest.raises(ServiceError, match=f"{path} of {_REPO} with a wrong checksum") as failed:
        await pull(_MODEL)
    assert failed.value.retryable
    assert path not in _here(tmp_path)
    assert not [name for name in _here(tmp_path) if name.endswith(".partial")]
    hub.wrong = set()
    await pull(_MODEL)
    assert find(_MODEL) is not None


async def test_what_is_left_of_other_content_is_not_gone_on_with(
    hub: FakeHub, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / _REPO / "deep"
    folder.mkdir(parents=True)
    (folder / "model.bin.0123456789abcdef.partial").write_bytes(b"of another version")
    directory = await pull(_MODEL)
    assert (directory / "deep/model.bin").read_bytes() == _WEIGHTS


async def test_a_hub_in_trouble_is_asked_again(hub: FakeHub) -> None:
    attempts = 0

    def recover() -> None:
        nonlocal attempts
        attempts += 1
        hub.status = 503 if attempts < 3 else 200

    hub.on_file = recover
    await pull(_MODEL)
    assert hub.sent == ["config.json"] * 3 + ["deep/model.bin"]


@pytest.mark.parametrize("status", [401, 404])
async def test_a_repository_that_may_not_be_read(hub: FakeHub, status: int) -> None:
    hub.status = status
    with pytest.raises(ConfigError, match=rf"no repository someone/a-model .*{status}.*HF_TOKEN"):
        await pull(_MODEL)


async def test_a_repository_without_such_a_model(hub: FakeHub) -> None:
    del hub.files[_REPO]["deep/model.bin"]
    with pytest.raises(ConfigError, match=r"has no deep/model\.bin: 'small' is no model"):
        await pull(_MODEL)


def test_what_is_no_repository_is_refused() -> None:
    with pytest.raises(ConfigError, match="write owner/name"):
        ModelFiles("x", "../etc", ("passwd",))


def test_a_first_use_tells_that_it_takes_time(hub: FakeHub) -> None:
    told: list[tuple[str, dict[str, object]]] = []
    sink = logger.add(
        lambda message: told.append((message.record["message"], message.record["extra"])),
        level="INFO",
        format="{message}",
    )
    try:
        assert ensure(_MODEL) == find(_MODEL)
    finally:
        logger.remove(sink)
    assert told[0][0] == "a model is being downloaded for its first use"
    assert told[0][1] == {"model": "small", "megabytes": 0}
    assert told[-1] == ("model download", {"model": "small", "percent": 100})


def test_a_hub_that_cannot_be_reached(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ServiceError) as failed:
        ensure(_MODEL)
    text = str(failed.value)
    assert failed.value.retryable
    assert "cannot be reached" in text
    assert "antiphon models pull small" in text
    assert "http://127.0.0.1:9/someone/a-model" in text


@pytest.mark.parametrize("variable", ["ANTIPHON_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_says_what_is_missing_and_what_to_do(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ConfigError) as failed:
        ensure(_MODEL)
    text = str(failed.value)
    assert f"{variable} is set" in text
    assert f"deep/model.bin is not in {tmp_path / 'models' / _REPO}" in text
    assert f"{hub.url}/{_REPO}" in text
    assert "`antiphon models pull small`" in text
    assert not hub.requests


async def test_offline_a_model_that_is_here_is_used(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = await pull(_MODEL)
    monkeypatch.setenv("ANTIPHON_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert find(_MODEL) == directory


async def test_the_cache_of_the_hubs_own_tools_is_looked_in(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    repository = cache / "models--someone--a-model"
    snapshot = repository / "snapshots" / "0123"
    (snapshot / "deep").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    (snapshot / "config.json").write_text("{}")
    assert find(_MODEL) is None
    (snapshot / "deep" / "model.bin").write_bytes(_WEIGHTS)
    assert find(_MODEL) == snapshot
    assert ensure(_MODEL) == snapshot
    assert not hub.requests


async def test_a_full_disk_is_told_before(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_SPARE_BYTES", 1 << 62)
    with pytest.raises(ConfigError, match="make room, or set ANTIPHON_MODELS"):
        await pull(_MODEL)
    assert not hub.sent


_PULL = """
from antiphon.models.files import ModelFiles, ensure
print("up", flush=True)
print(ensure(ModelFiles("small", "someone/a-model", ("config.json", "deep/model.bin"))))
"""


def test_processes_that_want_the_same_model_download_it_once(hub: FakeHub, tmp_path: Path) -> None:
    all_are_up = threading.Event()
    hub.on_file = lambda: all_are_up.wait(30)
    roots = [str(Path(__file__).parents[2] / name) for name in ("runtime", "actors")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(roots)}
    command = [sys.executable, "-c", _PULL]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
        all_are_up.set()
        outputs = {process.communicate(timeout=30)[0].strip() for process in processes}
    finally:
        all_are_up.set()
        for process in processes:
            process.kill()
            process.wait()
    assert outputs == {str(tmp_path / "models" / _REPO)}
    assert hub.sent == ["config.json", "deep/model.bin"]
