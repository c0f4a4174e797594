#!/usr/bin/env python3
"""Makes examples/caller.wav and examples/caller.json: the caller of the demo.

The WAV is the voice of somebody on the phone: a few short sentences with pauses in which the bot
answers, and one sentence that cuts into the bot's answer. The JSON says what is spoken when, so
that the demo and the tests can compare it with what the bot heard.

Both files are kept in the repository; nobody has to run this to use them. To make them again, on
Debian:

    apt-get install flite
    python scripts/make_caller_wav.py --check

``--check`` hears every sentence with PocketSphinx, cut out as voice activity detection would cut
it, and fails unless the words come back exactly.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
VOICE = "slt"
LEAD_IN_SECS = 0.6
# Samples below this are the silence flite puts around a sentence.
SILENCE_LEVEL = 300
MAX_WAV_BYTES = 1_000_000

Samples = NDArray[np.int16]


@dataclass(frozen=True)
class Line:
    """One sentence of the caller.

    Attributes:
        spoken: what flite reads; punctuation shapes the melody.
        pause_after_secs: silence between the end of this sentence and the next one.
        interrupts: whether this sentence is meant to cut into the bot's answer.
    """

    spoken: str
    pause_after_secs: float
    interrupts: bool = False

    @property
    def words(self) -> str:
        """The sentence as a recogniser writes it: lower case, no punctuation."""
        return " ".join(self.spoken.lower().replace(",", " ").split())


# The bot notices the end of a sentence after 0.8 s of silence and answers about 2 s after its last
# word. An answer that is to be heard in full gets 5.6 s and more. The second sentence is long because
# the bot's answer repeats it, and the third one begins 3.5 s after it: more than 1 s into an answer
# that would go on for more than 1 s.
LINES = (
    Line("hello there", 5.6),
    Line("i feel sad about my job, because my boss is always angry", 3.5),
    Line("i need more time with my family", 6.2, interrupts=True),
    Line("i am very tired", 5.6),
    Line("thank you very much goodbye", 0.3),
)


def speak(text: str) -> Samples:
    """Returns a sentence as int16 samples at 16 kHz, without the silence around it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "line.wav"
        subprocess.run(["flite", "-voice", VOICE, "-t", text, "-o", str(path)], check=True)
        with wave.open(str(path)) as wav:
            if wav.getframerate() != SAMPLE_RATE_HZ or wav.getnchannels() != 1:
                raise SystemExit(f"flite voice {VOICE} does not speak 16 kHz mono here")
            samples = np.frombuffer(wav.readframes(wav.getnframes()), dtype=np.int16)
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > SILENCE_LEVEL)
    margin = SAMPLE_RATE_HZ // 100
    return samples[max(0, loud[0] - margin) : loud[-1] + margin]


def silence(secs: float) -> Samples:
    """Returns zeros for a time in seconds."""
    return np.zeros(round(secs * SAMPLE_RATE_HZ), dtype=np.int16)


def compose() -> tuple[Samples, list[dict[str, object]]]:
    """Returns the whole recording and, for each sentence, its words and its place in seconds."""
    pieces = [silence(LEAD_IN_SECS)]
    position = len(pieces[0])
    sentences: list[dict[str, object]] = []
    for line in LINES:
        voice = speak(line.spoken)
        sentences.append(
            {
                "text": line.words,
                "start": round(position / SAMPLE_RATE_HZ, 3),
                "end": round((position + len(voice)) / SAMPLE_RATE_HZ, 3),
                "interrupts": line.interrupts,
            }
        )
        pause = silence(line.pause_after_secs)
        pieces += [voice, pause]
        position += len(voice) + len(pause)
    return np.concatenate(pieces), sentences


def check(samples: Samples, sentences: list[dict[str, object]]) -> bool:
    """Hears every sentence with PocketSphinx and reports each one that is not word for word right.

    Every sentence is heard by a fresh decoder with three cuts, and all of them in a row by one
    decoder, because a decoder adapts to the voice as it goes.
    """
    from pocketsphinx import Decoder

    good = True
    one = Decoder(samprate=SAMPLE_RATE_HZ, loglevel="FATAL")
    for sentence in sentences:
        for before_secs, after_secs in ((0.3, 0.8), (0.1, 0.8), (0.5, 0.9)):
            start = round((float(str(sentence["start"])) - before_secs) * SAMPLE_RATE_HZ)
            end = round((float(str(sentence["end"])) + after_secs) * SAMPLE_RATE_HZ)
            cut = samples[max(0, start) : end]
            padded = np.concatenate([cut, silence(max(0.0, (end - len(samples)) / SAMPLE_RATE_HZ))])
            decoders = [Decoder(samprate=SAMPLE_RATE_HZ, loglevel="FATAL")]
            if before_secs == 0.3:
                decoders.append(one)
            for decoder in decoders:
                decoder.start_utt()
                decoder.process_raw(padded.tobytes(), full_utt=True)
                decoder.end_utt()
                heard = decoder.hyp().hypstr if decoder.hyp() else ""
                if heard != sentence["text"]:
                    good = False
                    print(f"said {sentence['text']!r}, heard {heard!r} ({before_secs} s before)")
    return good


def main() -> int:
    """Writes the two files; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default_folder = Path(__file__).resolve().parent.parent / "examples"
    parser.add_argument("--folder", type=Path, default=default_folder, help="where to write")
    parser.add_argument("--check", action="store_true", help="hear it with PocketSphinx")
    arguments = parser.parse_args()
    if shutil.which("flite") is None:
        print("flite is not installed: apt-get install flite", file=sys.stderr)
        return 2

    samples, sentences = compose()
    if samples.nbytes > MAX_WAV_BYTES:
        print(f"{samples.nbytes} bytes of audio: more than {MAX_WAV_BYTES}", file=sys.stderr)
        return 1
    if arguments.check and not check(samples, sentences):
        return 1
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with wave.open(str(arguments.folder / "caller.wav"), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE_HZ)
        wav.writeframes(samples.tobytes())
    facts = {
        "sample_rate": SAMPLE_RATE_HZ,
        "seconds": round(len(samples) / SAMPLE_RATE_HZ, 3),
        "voice": f"flite {VOICE}",
        "sentences": sentences,
    }
    text = json.dumps(facts, indent=2) + "\n"
    (arguments.folder / "caller.json").write_text(text, encoding="utf-8")
    print(f"{facts['seconds']} s, {len(sentences)} sentences, in {arguments.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
