"""Function schemas, direct functions and the OpenAI adapter."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

import pytest

from antiphon.adapters.schemas.direct_function import DirectFunctionWrapper
from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.adapters.schemas.tools_schema import AdapterType, ToolsSchema
from antiphon.adapters.services.open_ai_adapter import OpenAILLMAdapter

if TYPE_CHECKING:
    from antiphon.services.llm_service import FunctionCallParams


class Place(TypedDict):
    city: str
    zip: NotRequired[int]


class Unit(Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


async def weather(
    params: FunctionCallParams,
    place: Place,
    days: int,
    unit: Unit = Unit.CELSIUS,
    detail: Literal["low", "high"] = "low",
    limit: float | None = None,
    tags: list[str] | None = None,
    options: dict[str, bool] | None = None,
    anything: Any = None,
    names: Sequence[str] = (),
    *args: Any,
    **kwargs: Any,
) -> None:
    """Tell the weather.

    For any place.

    Args:
        place: Where.
        days: How many days ahead.
    """


class Desk:
    async def book(self, params: FunctionCallParams, room: int) -> None:
        """Book a room."""


def test_a_direct_function_describes_itself() -> None:
    schema = DirectFunctionWrapper(weather).to_function_schema()

    assert schema.name == "weather"
    assert schema.description == "Tell the weather.\n\nFor any place."
    assert schema.required == ["place", "days"]
    assert schema.properties == {
        "place": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "zip": {"type": "integer"}},
            "required": ["city"],
            "description": "Where.",
        },
        "days": {"type": "integer", "description": "How many days ahead."},
        "unit": {"enum": ["celsius", "kelvin"]},
        "detail": {"enum": ["low", "high"]},
        "limit": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "tags": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
        "options": {
            "anyOf": [
                {"type": "object", "additionalProperties": {"type": "boolean"}},
                {"type": "null"},
            ]
        },
        "anything": {},
        "names": {"type": "array", "items": {"type": "string"}},
    }


def test_a_bound_method_is_a_direct_function() -> None:
    schema = DirectFunctionWrapper(Desk().book).to_function_schema()

    assert (schema.name, schema.description) == ("book", "Book a room.")
    assert schema.properties == {"room": {"type": "integer"}}


async def _no_parameters() -> None: ...


async def _other_first(x: int) -> None: ...


def _not_async(params: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (_no_parameters, "must have at least one parameter"),
        (_other_first, "first parameter must be named 'params'"),
        (_not_async, "must be async"),
        (Desk.book, "first parameter must be named 'params'"),
    ],
)
def test_what_is_no_direct_function_is_refused(function: Any, problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        ToolsSchema(standard_tools=[function])


def test_the_openai_adapter_wraps_each_function() -> None:
    place = FunctionSchema("f", "does", {"a": {"type": "string"}}, ["a"])
    adapter = OpenAILLMAdapter()

    tools = adapter.from_standard_tools(ToolsSchema(standard_tools=[place, weather]))

    assert tools[0] == {
        "type": "function",
        "function": {
            "name": "f",
            "description": "does",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "required": ["a"],
            },
        },
    }
    assert tools[1]["function"]["name"] == "weather"
    assert adapter.from_standard_tools([{"mine": 1}]) == [{"mine": 1}]


def test_tools_survive_as_plain_data() -> None:
    tools = ToolsSchema(
        standard_tools=[weather], custom_tools={AdapterType.GEMINI: [{"google_search": {}}]}
    )

    again = ToolsSchema.from_plain(tools.to_plain())

    assert again.standard_tools[0].to_default_dict() == tools.standard_tools[0].to_default_dict()
    assert again.custom_tools == tools.custom_tools
