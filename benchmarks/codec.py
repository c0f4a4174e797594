"""How long frames take to make, to write and to read: `python -m benchmarks.codec`.

Then what other libraries that write MessagePack would take for the values of the same frames: packing
and unpacking alone, without what else the codec does (finding the plan of a class, checking the fields,
building the frame). A library that is not installed is left out.
"""

from __future__ import annotations

import argparse
import datetime
import enum
import importlib
import timeit
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgpack

from antiphon.frames import frames
from antiphon.frames._decode import _OWN_PLANS
from antiphon.frames._plan import plan_for
from antiphon.frames.codec import decode, encode
from benchmarks.harness.machine import is_compiled

try:
    from antiphon.frames._plain import decode_plain, encode_plain
except ImportError:  # nothing was compiled
    decode_plain = encode_plain = None

AUDIO = bytes(640)
ROUNDS = 50_000
REPEATS = 5
LLM_MESSAGES = [
    {"role": role, "content": "What people say to one another, in a sentence or two." * 2}
    for role in ("system", "user", "assistant", "user")
]

SAMPLES: dict[str, Callable[[], frames.Frame]] = {
    "InputAudioRawFrame, 640 bytes": lambda: frames.InputAudioRawFrame(AUDIO, 16000, 1),
    "TextFrame": lambda: frames.TextFrame("Hello."),
    "EndFrame": frames.EndFrame,
    "TranscriptionFrame": lambda: frames.TranscriptionFrame("Hello.", "user", "2025-01-01"),
    "OutputImageRawFrame, 640 bytes": lambda: frames.OutputImageRawFrame(AUDIO, (16, 10), "RGBA"),
    "LLMMessagesAppendFrame": lambda: frames.LLMMessagesAppendFrame(LLM_MESSAGES),
}


class _Colour(enum.Enum):
    RED = 1


class _Text(str):
    __slots__ = ()


# What the codec writes in a way of its own, so that it comes back as what it was.
ODD: dict[str, object] = {
    "tuple": (1, 2),
    "set": {1, 2},
    "large integer": 1 << 70,
    "enum": _Colour.RED,
    "datetime": datetime.datetime(2025, 1, 1),  # noqa: DTZ001 - any will do
    "UUID": uuid.UUID(int=1),
    "subclass of str": _Text("x"),
}


@dataclass(frozen=True)
class Library:
    """One way to write and read MessagePack.

    Attributes:
        name: Of the package.
        pack: Writes a value.
        unpack: Reads one.
        asked: Whether the library leaves a value to the codec, rather than write it as something
            else without a word, or refuse it.
    """

    name: str
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]
    asked: Callable[[Any], bool]


def libraries() -> Iterator[Library | str]:
    """All that are installed, the codec's own first; of others a line that says so."""
    for name, make in (("msgpack", _msgpack), ("ormsgpack", _ormsgpack), ("msgspec", _msgspec)):
        try:
            yield make()
        except ImportError:
            yield f"{name} is not installed: left out"


def _is_asked(pack_with: Callable[[Callable[[Any], object], Any], object]) -> Callable[[Any], bool]:
    def asked(value: object) -> bool:
        seen = []

        def hook(value: object) -> None:
            seen.append(value)

        # Some say no to what others leave to the hook.
        with suppress(TypeError, ValueError, OverflowError):
            pack_with(hook, value)
        return bool(seen)

    return asked


def _refuse(value: object) -> object:
    raise TypeError(f"a {type(value).__name__}")


def _msgpack() -> Library:
    # As the codec has it.
    pack = msgpack.Packer(default=_refuse, strict_types=True, buf_size=2048).pack
    asked = _is_asked(lambda hook, value: msgpack.packb(value, default=hook, strict_types=True))
    unpack = partial(
        msgpack.unpackb,
        ext_hook=msgpack.ExtType,
        unicode_errors="surrogatepass",
        max_array_len=256,
    )
    return Library("msgpack", pack, unpack, asked)


def _ormsgpack() -> Library:
    package = importlib.import_module("ormsgpack")
    options = package.OPT_NON_STR_KEYS
    for what in ("BIG_INT", "DATACLASS", "DATETIME", "ENUM", "SUBCLASS", "TUPLE", "UUID"):
        options |= getattr(package, f"OPT_PASSTHROUGH_{what}")

    pack = partial(package.packb, default=_refuse, option=options)
    asked = _is_asked(lambda hook, value: package.packb(value, default=hook, option=options))
    unpack = partial(package.unpackb, ext_hook=package.Ext, option=package.OPT_NON_STR_KEYS)
    return Library("ormsgpack", pack, unpack, asked)


def _msgspec() -> Library:
    package = importlib.import_module("msgspec.msgpack")
    pack = package.Encoder(enc_hook=_refuse).encode
    unpack = package.Decoder(ext_hook=package.Ext).decode
    asked = _is_asked(lambda hook, value: package.encode(value, enc_hook=hook))
    return Library("msgspec", pack, unpack, asked)


def microseconds(function: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The best of some rounds, which is the one least disturbed by the rest of the machine."""
    return min(timeit.repeat(function, number=rounds, repeat=REPEATS)) / rounds * 1e6


def measure_frames(rounds: int) -> None:
    """Prints what whole frames take, by the codec as it is in this process."""
    print(f"{'frame':32} {'bytes':>6} {'make':>8} {'encode':>8} {'decode':>8}   (microseconds)")
    for label, make in SAMPLES.items():
        frame = make()
        data = encode(frame)
        times = [
            microseconds(make, rounds),
            microseconds(partial(encode, frame), rounds),
            microseconds(partial(decode, data), rounds),
        ]
        print(f"{label:32} {len(data):6} " + " ".join(f"{time:8.2f}" for time in times))


def measure_short_way(rounds: int) -> None:
    """Prints what the codec's short way takes by itself, where it is compiled."""
    write, read = encode_plain, decode_plain
    if write is None or read is None:
        print("the codec's short way is not compiled: left out")
        return
    print(f"{'antiphon.frames._plain':32} {'':6} {'':8} {'encode':>8} {'decode':>8}")
    for label, make in SAMPLES.items():
        frame = make()
        plan = plan_for(type(frame))
        data = write(plan, frame)
        if data is None or read(_OWN_PLANS, data) is None:
            print(f"{label:32} goes the general way: not all of it is plain")
            continue
        times = [
            microseconds(partial(write, plan, frame), rounds),
            microseconds(partial(read, _OWN_PLANS, data), rounds),
        ]
        print(f"{label:32} {len(data):6} {'':8} " + " ".join(f"{time:8.2f}" for time in times))


def measure_libraries(rounds: int) -> None:
    """Prints what libraries take for the same values, and what else they do with others."""
    for found in libraries():
        if isinstance(found, str):
            print(found)
            continue
        print(f"{found.name:32} {'':6} {'':8} {'pack':>8} {'unpack':>8}")
        for label, make in SAMPLES.items():
            data = encode(make())
            values = found.unpack(data)
            if found.pack(values) != data:
                print(f"{label:32} other bytes")
                continue
            times = [
                microseconds(partial(found.pack, values), rounds),
                microseconds(partial(found.unpack, data), rounds),
            ]
            print(f"{label:32} {len(data):6} {'':8} " + " ".join(f"{time:8.2f}" for time in times))
        not_asked = [name for name, value in ODD.items() if not found.asked(value)]
        if not_asked:
            print(f"  cannot tell the codec of: {', '.join(not_asked)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="does it work?")
    rounds = ROUNDS // 50 if parser.parse_args().quick else ROUNDS
    compiled = is_compiled("antiphon.frames._encode")
    print(f"the codec is {'compiled' if compiled else 'not compiled'}")
    measure_frames(rounds)
    measure_short_way(rounds)
    measure_libraries(rounds)


if __name__ == "__main__":
    main()
