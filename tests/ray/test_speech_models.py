"""Whisper in a model actor that is killed while sessions speak: no transcript is lost, none comes twice."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.models import tiny_whisper
from tests.models.recorded import caller
from tests.ray.test_model_actors import WAIT_SECS, process

from antiphon.models.model import Item, ModelSpec
from antiphon.services.whisper._engine import Request, Whisper
from antiphon_actors.cluster import LocalCluster
from antiphon_actors.models.settings import ModelSettings

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(90)]

_SESSIONS = 8


async def test_all_sessions_get_all_their_transcripts(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    folder = tiny_whisper.build(tmp_path / "whisper")
    spec = ModelSpec(Whisper, {"model": str(folder), "device": "cpu", "cpu_threads": 1})
    requests = [
        Request(audio=sentence.audio, language="en", no_speech_prob=0.9, final=True)
        for sentence in caller()
    ]
    alone = spec.build()
    alone.load()
    wanted = [list(map(tuple, alone.run_batch([Item(one)])[0]["parts"])) for one in requests]
    alone.close()

    async with process(tmp_path, ModelSettings()) as here:
        clients = [await here.connect(spec) for _ in range(_SESSIONS)]
        half_way = asyncio.Event()

        async def talk(number: int) -> list[list[tuple[str, float]]]:
            found = []
            for turn, request in enumerate(requests):
                answer = await clients[number].request(request, deadline_secs=WAIT_SECS)
                found.append(list(map(tuple, answer["parts"])))
                if turn == len(requests) // 2:
                    half_way.set()
            return found

        talking = [asyncio.ensure_future(talk(number)) for number in range(_SESSIONS)]
        await half_way.wait()
        (actor,) = (await here.agent.status.remote())["model_processes"]
        os.kill(actor["pid"], 9)
        heard = await asyncio.gather(*talking)
        assert clients[0].statistics()["actors_lost"] == 1
    for session in heard:
        assert [[text for text, _ in parts] for parts in session] == [
            [text for text, _ in parts] for parts in wanted
        ]
