"""How long frames take to make, to write and to read: `python benchmarks/codec.py`."""

from __future__ import annotations

import timeit
from collections.abc import Callable

from antiphon.frames import frames
from antiphon.frames.codec import decode, encode

AUDIO = bytes(640)
ROUNDS = 50_000

SAMPLES: dict[str, Callable[[], frames.Frame]] = {
    "InputAudioRawFrame, 640 bytes": lambda: frames.InputAudioRawFrame(AUDIO, 16000, 1),
    "TextFrame": lambda: frames.TextFrame("Hello."),
    "EndFrame": frames.EndFrame,
    "TranscriptionFrame": lambda: frames.TranscriptionFrame("Hello.", "user", "2025-01-01"),
    "OutputImageRawFrame, 640 bytes": lambda: frames.OutputImageRawFrame(AUDIO, (16, 10), "RGBA"),
}


def microseconds(function: Callable[[], object]) -> float:
    """The best of five rounds, which is the one least disturbed by the rest of the machine."""
    return min(timeit.repeat(function, number=ROUNDS, repeat=5)) / ROUNDS * 1e6


def main() -> None:
    print(f"{'frame':32} {'bytes':>6} {'make':>8} {'encode':>8} {'decode':>8}   (microseconds)")
    for label, make in SAMPLES.items():
        frame = make()
        data = encode(frame)
        times = [
            microseconds(make),
            microseconds(lambda frame=frame: encode(frame)),  # type: ignore[misc]
            microseconds(lambda data=data: decode(data)),  # type: ignore[misc]
        ]
        print(f"{label:32} {len(data):6} " + " ".join(f"{time:8.2f}" for time in times))


if __name__ == "__main__":
    main()
