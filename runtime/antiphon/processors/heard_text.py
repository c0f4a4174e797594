"""How much of a text the user has heard, and how those learn of it who write it down.

A speech service without word times tells the text of a sentence behind its audio, so an interruption
in the sentence would lose all of it; or ahead of its audio, so that all of it would count as heard. The
output transport counts what it plays, and the interruption carries what was heard. All this travels as
metadata of the frames.
"""

from __future__ import annotations

from antiphon.frames.frames import Frame, StartInterruptionFrame, TTSAudioRawFrame

_SPOKEN = "spoken_text"
_HEARD = "heard_text"
_CUT = "cut_text"


def begin_text(frame: TTSAudioRawFrame, text: str) -> None:
    """Says that a text begins with this audio."""
    frame.metadata[_SPOKEN] = text


def text_begun(frame: Frame) -> str | None:
    """The text that begins with this audio, if one does."""
    # Asking a frame for its metadata would make them.
    return (vars(frame).get("metadata") or {}).get(_SPOKEN)


def add_heard_text(frame: StartInterruptionFrame, text: str) -> None:
    """Says what was heard of the text that this interruption cuts."""
    if text:
        before = heard_text(frame)
        frame.metadata[_HEARD] = f"{before} {text}" if before else text


def heard_text(frame: StartInterruptionFrame) -> str:
    """What was heard of the text that this interruption cuts; empty if nothing or unknown."""
    return str((vars(frame).get("metadata") or {}).get(_HEARD, ""))


def note_cut_text(frame: StartInterruptionFrame, text: str, heard: str) -> None:
    """Says that a text, already written down as a whole, was heard only in part."""
    frame.metadata[_CUT] = [text, heard]


def corrected(frame: StartInterruptionFrame, written: str) -> str:
    """What was written down of the last answer, without what an interruption has cut off it."""
    cut = (vars(frame).get("metadata") or {}).get(_CUT)
    if not isinstance(cut, list) or len(cut) != 2:
        return written
    words, text = written.split(), str(cut[0]).split()
    if not text or words[-len(text) :] != text:
        return written
    return " ".join([*words[: -len(text)], *str(cut[1]).split()])


def words_within(text: str, share: float) -> str:
    """The whole words of a text that lie within a share of it.

    Args:
        text: The text.
        share: How much of its audio was played, 0 to 1.
    """
    if share >= 1.0:
        return text
    limit = share * len(text)
    end = 0
    position = 0
    for word in text.split(" "):
        position += len(word)
        if position > limit:
            break
        end = position
        position += 1
    return text[:end]
