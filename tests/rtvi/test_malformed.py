"""Messages that are none: an answer, and the session goes on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.frames.frames import ErrorFrame, LLMMessagesAppendFrame, TransportMessageUrgentFrame
from antiphon.processors.frameworks._rtvi.processor import _KINDS
from antiphon.testing import virtual_time

LABEL = {"label": "rtvi-ai"}


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("message", "kind", "error"),
    [
        (LABEL, "error", "Invalid RTVI message: type: Field required"),
        ({**LABEL, "id": "7"}, "error-response", "Invalid RTVI message: type: Field required"),
        ({**LABEL, "type": "x", "id": 3}, "error", "Invalid RTVI message: id: "),
        ({**LABEL, "type": "x"}, "error", "Unsupported type x"),
        ({**LABEL, "type": "x", "id": None}, "error", "Unsupported type x"),
        ({**LABEL, "type": "y" * 500, "id": "7"}, "error-response", "Unsupported type yyy"),
        (
            {**LABEL, "type": "client-message", "id": "7"},
            "error-response",
            "Invalid message: client-message: data has to be an object",
        ),
        (
            {**LABEL, "type": "append-to-context", "id": "7", "data": {"role": "user"}},
            "error-response",
            "Invalid message: append-to-context: content: Field required",
        ),
        (
            {**LABEL, "type": "llm-function-call-result", "id": "7", "data": {}},
            "error-response",
            "Invalid message: llm-function-call-result: function_name: Field required; ",
        ),
    ],
)
async def test_what_is_wrong_is_said(make_bot: Any, message: Any, kind: str, error: str) -> None:
    async with make_bot() as bot:
        await bot.send_raw(message)
        (answer,) = bot.sent
        assert answer["type"] == kind
        assert answer["data"]["error"].startswith(error)
        assert len(answer["data"]["error"]) < 300
        assert answer.get("id") == (message.get("id") if kind == "error-response" else None)


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    "message", ["text", None, 5, [], {}, {"label": "other", "type": "x", "id": "1"}], ids=repr
)
async def test_other_protocols_are_left_alone(make_bot: Any, message: Any) -> None:
    async with make_bot() as bot:
        await bot.send_raw(message)
        assert bot.sent == []
        assert bot.down.of(TransportMessageUrgentFrame) == []


@pytest.mark.virtual_time
async def test_what_people_say_is_not_logged(make_bot: Any, log: list[str]) -> None:
    secret = "my bank is closed"
    async with make_bot() as bot:
        await bot.send("append-to-context", {"role": "user", "content": secret})
        await bot.send("append-to-context", {"role": secret})
        await bot.send("client-message", {"t": secret, "d": secret})
        await bot.send("client-message", {"d": secret})
        await bot.send(secret)
        await bot.send("action", {"service": secret, "action": secret})
        data = {"config": [{"service": secret, "options": [{"name": "a", "value": secret}]}]}
        await bot.send("update-config", data)
        await bot.send_raw({**LABEL, "text": secret})
        assert len(bot.of("error-response")) + len(bot.of("error")) == 6
    assert not [line for line in log if secret in line]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=8,
)
fields = st.sampled_from(
    ["t", "d", "role", "content", "service", "action", "arguments", "config", "version", "about"]
)
data_like = anything | st.dictionaries(fields, anything, max_size=4)
kinds = st.sampled_from([kind for kind in _KINDS if kind != "disconnect-bot"]) | st.text(max_size=9)
message_like = st.fixed_dictionaries(
    {"label": st.just("rtvi-ai")}, optional={"type": kinds, "id": anything, "data": data_like}
)


# The fixture is a class: nothing to be made anew for each example.
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(messages=st.lists(message_like | anything, max_size=6))
def test_nothing_a_client_sends_ends_the_session(make_bot: Any, messages: list[Any]) -> None:
    async def main() -> None:
        async with make_bot() as bot:
            for message in messages:
                await bot.send_raw(message)
            await bot.send("append-to-context", {"role": "user", "content": "still here"})
            await bot.settle(1)
            frames = bot.down.of(LLMMessagesAppendFrame)
            assert frames[-1].messages == [{"role": "user", "content": "still here"}]
            assert bot.up.of(ErrorFrame) == []
            assert all(message["label"] == "rtvi-ai" for message in bot.sent)

    virtual_time.run(main())
