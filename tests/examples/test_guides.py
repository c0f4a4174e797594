"""The programs of the guides run: a recorded caller says hello, and each bot does its part.

They run at the speed of speech and side by side, so all of them take as long as one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from antiphon.runner.types import RunnerArguments

EXAMPLES = Path(__file__).parents[2] / "examples"
GUIDES = EXAMPLES / "guides"

# The caller says "hello there" from 0.6 s to 1.3 s.
CALLER_SECS = 2.2


class Guide:
    """One program: what it printed, and the files it left."""

    def __init__(self, name: str, folder: Path) -> None:
        spec = importlib.util.spec_from_file_location(f"guide_{name}", GUIDES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.folder = folder / name
        self.folder.mkdir()
        self.lines: list[str] = []
        vars(self.module)["print"] = self._print
        self.made: dict[str, Any] = {}
        for kind in ("FileTransport", "OpenAILLMContext"):
            if hasattr(self.module, kind):
                setattr(self.module, kind, self._keep(kind, getattr(self.module, kind)))

    def _keep(self, kind: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def keep(*args: Any, **kwargs: Any) -> Any:
            self.made[kind] = make(*args, **kwargs)
            return self.made[kind]

        return keep

    def _print(self, *values: object, file: Any = None) -> None:
        if file is None:
            self.lines.append(" ".join(map(str, values)))
        else:
            print(*values, file=file)

    async def run(self, caller: Path, done: Callable[[Guide], bool], body: dict[str, Any]) -> None:
        """Has the conversation; the caller hangs up as soon as the bot has done its part."""
        whole = {"caller": str(caller), "output_dir": str(self.folder), "tail_secs": 60, **body}
        conversation = asyncio.create_task(self.module.bot(RunnerArguments(body=whole)))
        while not conversation.done() and not done(self):
            await asyncio.wait({conversation}, timeout=0.05)
        if not conversation.done():
            await self.made["FileTransport"]._call_event_handler("on_client_disconnected", None)
        await conversation

    def has(self, *parts: str) -> bool:
        """Whether one line has all of these in it."""
        return any(all(part in line for part in parts) for line in self.lines)


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("caller") / "hello.wav"
    with wave.open(str(EXAMPLES / "caller.wav")) as whole, wave.open(str(path), "wb") as begin:
        begin.setparams(whole.getparams())
        begin.writeframes(whole.readframes(round(CALLER_SECS * whole.getframerate())))
    return path


def context_management(guide: Guide) -> None:
    assert guide.lines[0] == "system: You are a good listener."
    assert "user: hello there" in guide.lines
    # The bot spoke first, and answered.
    roles = [line.partition(":")[0] for line in guide.lines]
    assert roles[1] == "assistant"
    assert roles.count("assistant") >= 2
    assert "system: The caller has hung up." in guide.lines


def custom_frame_processor(guide: Guide) -> None:
    assert guide.lines == ["the picture shows: speaking", "the picture shows: waiting"]


def end_pipeline(guide: Guide) -> None:
    assert guide.lines == ["ended in good order"]


def detecting_user_idle(guide: Guide) -> None:
    # From the beginning again when the caller had said something.
    assert guide.lines[-3:] == ["Are you still there?", "Would you like to go on?", "Goodbye."]


def recording_audio(guide: Guide) -> None:
    assert "saved recording.wav" in guide.lines
    assert {"saved user-1.wav", "saved bot-1.wav"} <= set(guide.lines)
    with wave.open(str(guide.folder / "recording.wav")) as file:
        assert file.getnchannels() == 2
        # The caller's words at least.
        assert file.getnframes() > 1.3 * file.getframerate()


def saving_transcripts(guide: Guide) -> None:
    written = (guide.folder / "transcript.txt").read_text(encoding="utf-8").splitlines()
    assert written == guide.lines
    assert written[0].endswith("] user: hello there")
    assert "] assistant: " in written[1]


def user_input_muting(guide: Guide) -> None:
    assert guide.lines == []


def function_calling(guide: Guide) -> None:
    assert guide.lines[:2] == ["weather of Oslo", "end: done"]
    messages = "\n".join(guide.lines[2:])
    assert "'hello there'" in messages
    assert '"temperature": 21' in messages
    assert "It is sunny in Oslo." in messages


def metrics(guide: Guide) -> None:
    assert guide.has("EspeakTTSService", "characters: ")
    for service in ("PocketSphinxSTTService", "ElizaLLMService", "EspeakTTSService"):
        kinds = [line.split(" ", 1)[1] for line in guide.lines if line.startswith(service)]
        assert sum(kind.startswith("TTFB") and not kind.endswith("0.000 s") for kind in kinds) <= 1
        assert any(kind.startswith("processing time: ") for kind in kinds)


def end_of_turn(guide: Guide) -> None:
    # Too short for a whole turn, so a second of silence decides.
    assert guide.lines == ["the turn begins", "a pause: more to come", "the turn is over"]


def ends_by_itself(guide: Guide) -> bool:
    return False


def has_answered(guide: Guide) -> bool:
    context = guide.made.get("OpenAILLMContext")
    roles = [message["role"] for message in context.messages] if context else []
    return "user" in roles and roles[-1] == "assistant"


def has_measured(guide: Guide) -> bool:
    # One of them is the zero that every session begins with.
    spoken = sum("Espeak" in line and "processing" in line for line in guide.lines)
    heard = sum("PocketSphinx" in line and "processing" in line for line in guide.lines)
    return spoken > 1 and heard > 1


@dataclass(frozen=True)
class Plan:
    check: Callable[[Guide], None]
    done: Callable[[Guide], bool] = ends_by_itself
    body: dict[str, Any] = field(default_factory=dict)


PLANS = {
    "context_management": Plan(context_management, has_answered),
    "custom_frame_processor": Plan(custom_frame_processor, lambda guide: len(guide.lines) == 2),
    "end_pipeline": Plan(end_pipeline, body={"words": ["hello"]}),
    "detecting_user_idle": Plan(detecting_user_idle, body={"idle_secs": 0.4}),
    "recording_audio": Plan(
        recording_audio, lambda guide: guide.has("user-1") and guide.has("bot-1")
    ),
    "saving_transcripts": Plan(saving_transcripts, lambda guide: len(guide.lines) >= 2),
    "user_input_muting": Plan(user_input_muting, body={"tail_secs": 4}),
    "function_calling": Plan(function_calling),
    "end_of_turn": Plan(end_of_turn, lambda guide: guide.has("the turn is over")),
    "metrics": Plan(metrics, has_measured),
}


def test_every_guide_is_checked() -> None:
    assert set(PLANS) == {path.stem for path in GUIDES.glob("*.py")}


@pytest.mark.timeout(150)
async def test_the_guides_run(caller: Path, tmp_path: Path) -> None:
    guides = {name: Guide(name, tmp_path) for name in PLANS}
    async with asyncio.timeout(120):
        await asyncio.gather(
            *(guides[name].run(caller, plan.done, plan.body) for name, plan in PLANS.items())
        )
    for name, plan in PLANS.items():
        plan.check(guides[name])
