from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from antiphon.testing import virtual_time

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing-your-bot.md"


def test_the_example_of_the_page_about_testing_works() -> None:
    blocks = re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if "def test_" in block]
    names: dict[str, Any] = {}
    exec(compile(example, str(_PAGE), "exec"), names)
    virtual_time.run(names["test_the_bot_answers"]())
