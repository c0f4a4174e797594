"""Interruption strategies."""

import pytest

from antiphon.audio.interruptions.base_interruption_strategy import BaseInterruptionStrategy
from antiphon.audio.interruptions.min_words_interruption_strategy import (
    MinWordsInterruptionStrategy,
)


async def test_enough_words_interrupt() -> None:
    strategy = MinWordsInterruptionStrategy(min_words=3)
    assert not await strategy.should_interrupt()
    await strategy.append_text("yes")
    assert not await strategy.should_interrupt()
    await strategy.append_text(" that's  right")
    assert await strategy.should_interrupt()


async def test_reset_forgets_the_words() -> None:
    strategy = MinWordsInterruptionStrategy(min_words=2)
    await strategy.append_text("one two three")
    assert await strategy.should_interrupt()
    await strategy.reset()
    assert not await strategy.should_interrupt()


async def test_white_space_is_no_word_and_audio_is_ignored() -> None:
    strategy = MinWordsInterruptionStrategy(min_words=1)
    await strategy.append_text("  \n ")
    await strategy.append_audio(bytes(640), 16000)
    assert not await strategy.should_interrupt()


@pytest.mark.parametrize("words", [0, -1])
def test_less_than_a_word_is_refused(words: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MinWordsInterruptionStrategy(min_words=words)


async def test_a_strategy_may_ignore_audio_and_text() -> None:
    class Always(BaseInterruptionStrategy):
        async def should_interrupt(self) -> bool:
            return True

        async def reset(self) -> None:
            return None

    strategy = Always()
    await strategy.append_audio(bytes(2), 8000)
    await strategy.append_text("hello")
    assert await strategy.should_interrupt()
