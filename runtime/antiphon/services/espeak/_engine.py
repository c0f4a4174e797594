"""The eSpeak NG engine: one a process, with a thread of its own."""

from __future__ import annotations

import ctypes
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from antiphon.errors import OverloadedError, ServiceError

SAMPLE_RATE_HZ = 22_050

_PROVIDER = "espeak"
# Texts that wait for the engine. It speaks a sentence in some milliseconds.
_MAX_WAITING = 64
# How much audio the engine makes between two looks at whether it is still wanted.
_BUFFER_MS = 60

# Of espeak_ng/speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_POS_CHARACTER = 1
_EVENT_LIST_TERMINATED = 0
_EVENT_WORD = 1
_RATE, _VOLUME, _PITCH = 1, 2, 3
_DEFAULT_RATE, _DEFAULT_VOLUME, _DEFAULT_PITCH = 175, 100, 50


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word the engine is about to speak.

    Attributes:
        start: Index of its first character in the text.
        secs: When it is spoken, in seconds from the beginning of the audio.
    """

    start: int
    secs: float


@dataclass(frozen=True, slots=True)
class Request:
    """A text to speak.

    Attributes:
        text: The text.
        voice: Name of a voice, a language code, or either with "+" and a variant.
        rate: Words per minute.
        pitch: 0 to 100.
        volume: 0 to 200; 100 is normal.
    """

    text: str
    voice: str
    rate: int | None
    pitch: int | None
    volume: int | None


Deliver = Callable[[bytes, list[Word]], bool]


class Engine:
    """Speaks one text after the other, on one thread.

    The library has one state for the process and no locks, so everything it does happens there.
    """

    def __init__(self) -> None:
        """Loads nothing and starts nothing."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._work: queue.Queue[tuple[Callable[[], Any], Future[Any]] | None] = queue.Queue(
            _MAX_WAITING
        )
        self._users = 0
        # The thread's own.
        self._library: Any = None
        self._callback: Any = None
        self._deliver: Deliver | None = None
        self._failure: BaseException | None = None

    def acquire(self) -> Future[None]:
        """Counts a user in; the result comes when the engine is ready. Balance with release()."""
        with self._lock:
            self._users += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="espeak", daemon=True)
                self._thread.start()
        try:
            return self._submit(self._load)
        except OverloadedError:
            self.release()
            raise

    def release(self) -> None:
        """Counts a user out; behind the last one the thread ends. The library stays loaded."""
        with self._lock:
            self._users -= 1
            if self._users or self._thread is None:
                return
            self._work.put(None)
            thread, self._thread = self._thread, None
            # A thread of the next user must not run beside this one.
            thread.join()

    def speak(self, request: Request, deliver: Deliver) -> Future[None]:
        """Queues a text; the result comes when all of it was delivered, or delivery stopped.

        Args:
            request: What to speak.
            deliver: Gets each piece of audio (int16 PCM, mono, 22050 Hz) with the words that begin
                in it, on the engine's thread. It returns False to stop the engine.

        Raises:
            OverloadedError: Too many texts wait already.
        """
        return self._submit(lambda: self._speak(request, deliver))

    def voices(self) -> Future[list[str]]:
        """Asks for the language codes and names of all voices."""
        return self._submit(self._voices)

    def _submit(self, work: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            self._work.put_nowait((work, future))
        except queue.Full:
            raise OverloadedError(
                f"{_MAX_WAITING} texts wait for eSpeak NG already",
                retry_after=1,
                provider=_PROVIDER,
            ) from None
        return future

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            work, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                future.set_exception(error)
            # Or the last text, and what delivers it, would live until the next one.
            del item, work, future

    # -- on the thread ----------------------------------------------------------------------------

    def _load(self) -> None:
        if self._library is not None:
            return
        try:
            import espeakng_loader

            library = ctypes.CDLL(espeakng_loader.get_library_path())
            data = espeakng_loader.get_data_path()
        except (ImportError, OSError) as error:
            raise ServiceError(
                f"eSpeak NG cannot be used ({error}): pip install espeakng-loader",
                provider=_PROVIDER,
            ) from error
        library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        library.espeak_Synth.argtypes = (
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        )
        rate = library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, _BUFFER_MS, data.encode(), _INITIALIZE_DONT_EXIT
        )
        if rate != SAMPLE_RATE_HZ:
            raise ServiceError(f"eSpeak NG does not start with {data}", provider=_PROVIDER)
        self._callback = _Callback(self._on_audio)
        library.espeak_SetSynthCallback(self._callback)
        self._library = library

    def _speak(self, request: Request, deliver: Deliver) -> None:
        library = self._library
        if library.espeak_SetVoiceByName(request.voice.encode()) != 0:
            raise ServiceError(
                f"eSpeak NG has no voice {request.voice!r}; EspeakTTSService.voices() lists them",
                provider=_PROVIDER,
            )
        for parameter, value, default in (
            (_RATE, request.rate, _DEFAULT_RATE),
            (_VOLUME, request.volume, _DEFAULT_VOLUME),
            (_PITCH, request.pitch, _DEFAULT_PITCH),
        ):
            library.espeak_SetParameter(parameter, default if value is None else value, 0)
        # A null character would end the text for the library.
        text = request.text.replace("\0", " ").encode(errors="replace")
        self._deliver = deliver
        self._failure = None
        try:
            status = library.espeak_Synth(
                text, len(text) + 1, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
            )
        finally:
            self._deliver = None
        if self._failure is not None:
            raise self._failure
        if status != 0:
            raise ServiceError(f"eSpeak NG failed with status {status}", provider=_PROVIDER)

    def _on_audio(self, samples: Any, count: int, events: Any) -> int:
        """Takes a piece of audio from the library; 1 stops it. Must not raise."""
        try:
            words = []
            index = 0
            while events[index].type != _EVENT_LIST_TERMINATED:
                event = events[index]
                if event.type == _EVENT_WORD:
                    words.append(Word(event.text_position - 1, event.sample / SAMPLE_RATE_HZ))
                index += 1
            audio = ctypes.string_at(samples, count * 2) if samples and count else b""
            return 0 if self._deliver is not None and self._deliver(audio, words) else 1
        except BaseException as error:  # noqa: BLE001 - raised again by _speak()
            self._failure = error
            return 1

    def _voices(self) -> list[str]:
        listed = self._library.espeak_ListVoices(None)
        names: list[str] = []
        index = 0
        while listed[index]:
            voice = listed[index].contents
            # A priority byte, then the code; only the first language counts.
            code = ctypes.string_at(voice.languages + 1).decode()
            names.append(f"{code}: {voice.name.decode()}")
            index += 1
        return sorted(names)


engine = Engine()
