"""The PocketSphinx recogniser, called without holding Python's interpreter lock.

The package's own ``Decoder`` keeps the lock for as long as it listens: half a second for a sentence,
in which the whole process would stand still. The same library called through ctypes lets go of it.
"""

from __future__ import annotations

import ctypes
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from antiphon.errors import ServiceError

SAMPLE_RATE_HZ = 16_000

_PROVIDER = "pocketsphinx"
# Amplitude (of 32768) that speech reaches, however quiet. The recogniser hears words in silence.
_QUIETEST_PEAK = 50


class Decoder:
    """A recogniser with the US English model that comes with the package.

    Not for several threads at once. Every call may take long.
    """

    def __init__(self) -> None:
        """Loads the model (about 0.4 s).

        Raises:
            ServiceError: The package is missing or incomplete.
        """
        self._handle: int | None = None
        self._library, model = _load()
        library = self._library
        config = library.ps_config_init(None)
        for key, value in (
            ("hmm", model / "en-us"),
            ("lm", model / "en-us.lm.bin"),
            ("dict", model / "cmudict-en-us.dict"),
            ("loglevel", "FATAL"),
        ):
            library.ps_config_set_str(config, key.encode(), str(value).encode())
        library.ps_config_set_int(config, b"samprate", SAMPLE_RATE_HZ)
        self._handle = library.ps_init(config)
        library.ps_config_free(config)
        if not self._handle:
            raise ServiceError(f"PocketSphinx cannot load its model in {model}", provider=_PROVIDER)

    def transcribe(self, audio: bytes) -> str:
        """Recognises a whole utterance.

        The same audio gives the same words, whatever was heard before: the loudness of the voice
        is measured on the utterance as a whole, and what was learned from earlier ones is dropped.

        Args:
            audio: int16 little-endian PCM, mono, 16 kHz.

        Returns:
            Lower case words without punctuation; empty if nothing was understood.

        Raises:
            ServiceError: The library refused the audio, or the decoder is closed.
        """
        if self._handle is None:
            raise ServiceError("PocketSphinx is closed", provider=_PROVIDER)
        library, handle = self._library, self._handle
        samples = len(audio) // 2
        if samples < SAMPLE_RATE_HZ // 20:  # too short for a single sound
            return ""
        loudness = np.abs(np.frombuffer(audio, "<i2", samples).astype(np.int32))
        if loudness.max() < _QUIETEST_PEAK:
            return ""
        failed = (
            library.ps_reinit_feat(handle, None) < 0
            or library.ps_start_utt(handle) < 0
            or library.ps_process_raw(handle, audio, samples, 0, 1) < 0
        )
        failed = library.ps_end_utt(handle) < 0 or failed
        if failed:
            raise ServiceError("PocketSphinx refused the audio", provider=_PROVIDER)
        words: bytes | None = library.ps_get_hyp(handle, None)
        return words.decode() if words else ""

    def close(self) -> None:
        """Frees the model; afterwards the decoder is of no use."""
        if self._handle is not None:
            self._library.ps_free(self._handle)
            self._handle = None


class SharedDecoder:
    """One decoder for all services of a process, with a thread of its own.

    A decoder takes 90 MB, and it is several times faster than speech, so services take turns. Each
    has one segment at most in the thread's queue. The model is loaded for the first user and freed
    behind the last one.
    """

    def __init__(self) -> None:
        """Loads nothing yet."""
        self._lock = threading.Lock()
        self._users = 0
        self._executor: ThreadPoolExecutor | None = None
        self._decoder: Future[Decoder] | None = None

    def acquire(self) -> Future[Decoder]:
        """Counts a user in and loads the model if it is the first. Balance with release()."""
        with self._lock:
            self._users += 1
            # A load that failed is tried again.
            if self._decoder is None or (self._decoder.done() and self._decoder.exception()):
                if self._executor is None:
                    self._executor = ThreadPoolExecutor(1, "pocketsphinx")
                self._decoder = self._executor.submit(Decoder)
            return self._decoder

    def submit(self, audio: bytes) -> Future[str]:
        """Queues an utterance; see Decoder.transcribe().

        Raises:
            ServiceError: Nobody holds the decoder.
        """
        with self._lock:
            if self._executor is None or self._decoder is None:
                raise ServiceError("PocketSphinx is not running", provider=_PROVIDER)
            return self._executor.submit(_transcribe, self._decoder, audio)

    def release(self) -> None:
        """Counts a user out; behind the last one the thread ends and the model is freed."""
        with self._lock:
            self._users -= 1
            if self._users or self._executor is None or self._decoder is None:
                return
            self._executor.submit(_close, self._decoder)
            self._executor.shutdown(wait=False)
            self._executor = self._decoder = None


shared_decoder = SharedDecoder()


def _transcribe(decoder: Future[Decoder], audio: bytes) -> str:
    return decoder.result().transcribe(audio)


def _close(decoder: Future[Decoder]) -> None:
    if not decoder.cancelled() and decoder.exception() is None:
        decoder.result().close()


def _load() -> tuple[ctypes.CDLL, Path]:
    """Returns the library and the folder of the English model."""
    try:
        import pocketsphinx
        from pocketsphinx import _pocketsphinx

        library = ctypes.CDLL(_pocketsphinx.__file__)
        pointer, integer, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
        for name, result, arguments in (
            ("ps_config_init", pointer, [pointer]),
            ("ps_config_set_str", pointer, [pointer, text, text]),
            ("ps_config_set_int", pointer, [pointer, text, ctypes.c_long]),
            ("ps_config_free", integer, [pointer]),
            ("ps_init", pointer, [pointer]),
            ("ps_free", integer, [pointer]),
            ("ps_reinit_feat", integer, [pointer, pointer]),
            ("ps_start_utt", integer, [pointer]),
            ("ps_process_raw", integer, [pointer, text, ctypes.c_size_t, integer, integer]),
            ("ps_end_utt", integer, [pointer]),
            ("ps_get_hyp", text, [pointer, pointer]),
        ):
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
    except (ImportError, OSError, AttributeError) as error:
        raise ServiceError(
            f"PocketSphinx cannot be used ({error}): pip install pocketsphinx", provider=_PROVIDER
        ) from error
    return library, Path(pocketsphinx.get_model_path()) / "en-us"
