"""How much a Whisper model is given to hear at once.

Whisper was made for windows of 30 s, and what is shorter is padded with silence. Its encoder works as
long on silence as on speech, so a shorter window is several times as quick. Too short a window makes the
decoder say everything twice. Measured with the base model on 30 sentences of 1 to 8 s at three levels of
noise: word errors of 3.2, 3.5 and 5.3 % in 30 s, of 2.8, 3.5 and 5.3 % in 10 s, but of 15 % in the length
of the sentence plus 3 s.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 16_000
FULL_SECS = 30
WINDOWS_SECS = (10, 15, 20, FULL_SECS)

# The silence that is left at the end of a window at least.
_MARGIN_SECS = 1
# A long audio is cut in its quietest moment among the last seconds that fit.
_CUT_WITHIN_SECS = 8
_MOMENT_SAMPLES = SAMPLE_RATE_HZ // 10
# Of Whisper's own decoding: text that compresses better than this says the same again and again.
_MAX_COMPRESSION = 2.4


def window_secs(samples: int) -> int:
    """The shortest window, in seconds, for so much audio; the full one for what needs several."""
    wanted = samples / SAMPLE_RATE_HZ + _MARGIN_SECS
    return next((secs for secs in WINDOWS_SECS if secs >= wanted), FULL_SECS)


def cut(audio: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    """Cuts audio in pieces that fit in a full window, between words as far as that can be heard.

    Args:
        audio: Mono, 16 kHz.
    """
    pieces = []
    longest = FULL_SECS * SAMPLE_RATE_HZ
    while len(audio) > longest:
        first = longest - _CUT_WITHIN_SECS * SAMPLE_RATE_HZ
        moments = np.abs(audio[first:longest]).reshape(-1, _MOMENT_SAMPLES).mean(axis=1)
        at = first + int(moments.argmin()) * _MOMENT_SAMPLES + _MOMENT_SAMPLES // 2
        pieces.append(audio[:at])
        audio = audio[at:]
    return [*pieces, audio]


def loops(text: str) -> bool:
    """Whether a text says the same so often that the decoder must have got stuck."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) > _MAX_COMPRESSION


def says_all_twice(text: str) -> bool:
    """Whether a text consists of the same words twice or more, as in too short a window."""
    words = [word.strip(".,!?;:\u2026").lower() for word in text.split()]
    for length in range(1, len(words) // 2 + 1):
        if len(words) % length == 0 and words == words[:length] * (len(words) // length):
            return True
    return False
