from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from antiphon.testing import virtual_time

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing-your-bot.md"


@pytest.mark.parametrize("test", ["test_the_bot_answers", "test_the_bot_goes_on"])
def test_the_examples_of_the_page_about_testing_work(test: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if f"def {test}" in block]
    names: dict[str, Any] = {}
    exec(compile(example, str(_PAGE), "exec"), names)
    virtual_time.run(names[test]())
