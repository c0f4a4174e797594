"""A Piper voice of a process: sentences of several sessions, spoken side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

from antiphon.errors import ConfigError
from antiphon.models import threads
from antiphon.models.model import Item, Model, ModelSpec
from antiphon.services.piper._names import voice_path

if TYPE_CHECKING:
    from piper import PiperVoice, SynthesisConfig

# How often those whose sentence is being made are asked whether they still want it.
_LOOK_SECS = 0.02


class Request(TypedDict):
    """What `Piper` is asked.

    Attributes:
        text: A sentence.
        speaker: Name or number of the speaker, for voices with several; None for the first.
        length_scale: How long sounds are, 1 being the voice's own; None for that.
        noise_scale: How much sounds vary; None for the voice's own.
        noise_w_scale: How much the length of sounds varies; None for the voice's own.
        volume: 1 is normal.
    """

    text: str
    speaker: str | int | None
    length_scale: float | None
    noise_scale: float | None
    noise_w_scale: float | None
    volume: float


class Answer(TypedDict):
    """What `Piper` made.

    Attributes:
        audio: int16 PCM, mono; empty if there was nothing to say.
        sample_rate: In Hz.
    """

    audio: bytes
    sample_rate: int


class Piper(Model):
    """A voice of Piper, through onnxruntime.

    Each sentence has a thread of its own and onnxruntime only that. Measured on two cores with a voice of
    medium quality: 44 s of speech a second, against 34 s with both threads for one sentence after the
    other.

    Args:
        voice: The name of a published voice, or the path of an ``.onnx`` file.
        use_cuda: Whether to compute on an NVIDIA GPU.
        cpu_threads: How many sentences are made at the same time; 0 as in `antiphon.models.threads`.
    """

    def __init__(self, *, voice: str, use_cuda: bool = False, cpu_threads: int = 0) -> None:
        self._name = voice
        self._use_cuda = use_cuda
        self.max_batch = threads.cpu_threads(cpu_threads)
        self._voice: PiperVoice | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._counts = {"sentences": 0.0, "audio_secs": 0.0, "broken_off": 0.0}

    def load(self) -> None:
        """Loads the voice, which is downloaded first if need be, and says a word.

        Raises:
            ConfigError: There is no such voice, or it is not here and the machine is offline.
            ServiceError: The download failed.
        """
        path = voice_path(self._name)
        import onnxruntime
        from piper import PiperVoice
        from piper.config import PiperConfig

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        wanted = "CUDAExecutionProvider" if self._use_cuda else "CPUExecutionProvider"
        if wanted not in onnxruntime.get_available_providers():
            raise ConfigError(
                f"Piper cannot use the GPU: this onnxruntime has no {wanted}; "
                "install onnxruntime-gpu, or leave use_cuda off"
            )
        try:
            config = PiperConfig.from_dict(
                json.loads(path.with_name(f"{path.name}.json").read_text())
            )
            session = onnxruntime.InferenceSession(str(path), options, providers=[wanted])
        except (KeyError, ValueError, RuntimeError) as error:
            raise ConfigError(f"the Piper voice {path} cannot be loaded: {error}") from error
        self._voice = PiperVoice(session=session, config=config)
        self._threads = ThreadPoolExecutor(self.max_batch, "piper")
        warm_up = Request(
            text="a",
            speaker=None,
            length_scale=None,
            noise_scale=None,
            noise_w_scale=None,
            volume=1.0,
        )
        (answer,) = self.run_batch([Item(warm_up)])
        if isinstance(answer, Exception):
            raise answer

    def run_batch(self, items: Sequence[Item]) -> Sequence[Answer | Exception]:
        """Speaks a sentence for each session, side by side.

        What nobody waits for any more is broken off in the midst.

        Returns:
            An `Answer` each, or a ConfigError for a speaker that the voice does not have.
        """
        import onnxruntime

        assert self._threads is not None, "load() comes first"
        stops = [onnxruntime.RunOptions() for _ in items]
        futures = [
            self._threads.submit(self._speak, item, stop)
            for item, stop in zip(items, stops, strict=True)
        ]
        running = set(futures)
        while running:
            for item, stop in zip(items, stops, strict=True):
                stop.terminate = item.cancelled
            _, running = wait(running, _LOOK_SECS)
        return [self._result(item, future) for item, future in zip(items, futures, strict=True)]

    def close(self) -> None:
        """Ends the threads and frees the voice."""
        if self._threads is not None:
            self._threads.shutdown()
        self._voice = None

    def statistics(self) -> Mapping[str, float]:
        """Sentences, seconds of audio made, and sentences broken off."""
        return dict(self._counts)

    def _speak(self, item: Item, stop: Any) -> Answer:
        """Makes a sentence; on a thread of its own."""
        assert self._voice is not None
        request: Request = item.payload
        voice = replace(self._voice, session=_Stoppable(self._voice.session, stop))
        audio = b"".join(
            chunk.audio_int16_bytes
            for chunk in voice.synthesize(request["text"], self._config(request))
        )
        return Answer(audio=audio, sample_rate=voice.config.sample_rate)

    def _result(self, item: Item, future: Future[Answer]) -> Answer | Exception:
        if (error := future.exception()) is None:
            answer = future.result()
            self._counts["sentences"] += 1
            self._counts["audio_secs"] += len(answer["audio"]) / 2 / answer["sample_rate"]
            return answer
        if item.cancelled:
            self._counts["broken_off"] += 1
            return Answer(audio=b"", sample_rate=0)
        if not isinstance(error, Exception):
            raise error
        return error

    def _config(self, request: Request) -> SynthesisConfig:
        from piper import SynthesisConfig

        return SynthesisConfig(
            speaker_id=self._speaker(request["speaker"]),
            length_scale=request["length_scale"],
            noise_scale=request["noise_scale"],
            noise_w_scale=request["noise_w_scale"],
            volume=request["volume"],
        )

    def _speaker(self, speaker: str | int | None) -> int | None:
        """The number of a speaker.

        Raises:
            ConfigError: The voice does not have it.
        """
        assert self._voice is not None
        config = self._voice.config
        number = config.speaker_id_map.get(speaker) if isinstance(speaker, str) else speaker
        if speaker is not None and (number is None or not 0 <= number < config.num_speakers):
            known = ", ".join(config.speaker_id_map) or f"0 to {config.num_speakers - 1}"
            raise ConfigError(
                f"the Piper voice {self._name} has no speaker {speaker!r}, but {known}"
            )
        return number


class _Stoppable:
    """A session of onnxruntime whose work can be broken off."""

    def __init__(self, session: Any, stop: Any) -> None:
        self._session = session
        self._stop = stop

    def run(self, outputs: Any, inputs: Any) -> Any:
        """Runs the model, as the session does.

        Raises:
            RuntimeError: It was broken off; or what onnxruntime raises.
        """
        if self._stop.terminate:
            raise RuntimeError("broken off")
        return self._session.run(outputs, inputs, self._stop)


def piper_spec(voice: str, *, use_cuda: bool = False, cpu_threads: int = 0) -> ModelSpec:
    """The voice that services with these arguments share; see `Piper`."""
    return ModelSpec(Piper, {"voice": voice, "use_cuda": use_cuda, "cpu_threads": cpu_threads})
