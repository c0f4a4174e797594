"""Where an error comes from, also in code that came from another process."""

from __future__ import annotations

import types

import pytest

from antiphon.utils.places import Place, file_of, places_of


def test_the_lines_that_an_error_came_through() -> None:
    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        fails()
    places = places_of(caught.value.__traceback__)
    assert [place.file for place in places] == [__file__, __file__]
    assert places[-1].line == fails.__code__.co_firstlineno + 1
    assert str(Place("bot.py", 7)) == "bot.py:7"
    assert places_of(None) == []


def test_code_that_was_pickled_is_that_of_its_module() -> None:
    code = compile("1", "<dynamic-code>", "exec")
    assert file_of(code, {"__file__": "/bots/bot.py"}) == "/bots/bot.py"
    assert file_of(code, {}) == "<dynamic-code>"
    assert file_of(code, {"__file__": None}) == "<dynamic-code>"
    named = compile("1", "/bots/other.py", "exec")
    assert isinstance(named, types.CodeType)
    assert file_of(named, {"__file__": "/bots/bot.py"}) == "/bots/other.py"
