"""MCP tools as functions of a language model, with real servers over all three transports."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("mcp")

import uvicorn
from mcp import StdioServerParameters
from mcp.client.session_group import SseServerParameters, StreamableHttpParameters

from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.errors import ConfigError, ServiceError
from antiphon.frames.frames import (
    EndFrame,
    Frame,
    FunctionCallFromLLM,
    FunctionCallResultFrame,
    StartInterruptionFrame,
)
from antiphon.pipeline.pipeline import Pipeline
from antiphon.pipeline.runner import PipelineRunner
from antiphon.pipeline.task import PipelineTask
from antiphon.processors.aggregators.openai_llm_context import (
    OpenAILLMContext,
    OpenAILLMContextFrame,
)
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services import _mcp_connection
from antiphon.services._mcp_schema import function_parameters, without_additional_properties
from antiphon.services.llm_service import FunctionCallParams, LLMService
from antiphon.services.mcp_service import MCPClient

SERVER = Path(__file__).with_name("mcp_server.py")
PACKAGE = StdioServerParameters(command=sys.executable, args=[str(SERVER)])
RAW = StdioServerParameters(
    command=sys.executable, args=["-I", str(SERVER.with_name("raw_mcp_server.py"))]
)


_others: set[psutil.Process] = set()


@pytest.fixture(autouse=True)
def _know_the_children_of_others() -> None:
    # What libraries keep for the life of the process, say.
    _others.clear()
    _others.update(psutil.Process().children())


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child not in _others]


class CallingLLM(LLMService):
    """Calls one function for every context, and takes note of what it has registered."""

    simplify = False

    def __init__(self, *calls: tuple[str, dict[str, Any]]) -> None:
        super().__init__()
        self.calls = list(calls)
        self.results: list[Any] = []

    def needs_mcp_alternate_schema(self) -> bool:
        return self.simplify

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, OpenAILLMContextFrame):
            name, arguments = self.calls.pop(0)
            await self.run_function_calls(
                [FunctionCallFromLLM(name, f"{name}-1", arguments, frame.context)]
            )
        else:
            await self.push_frame(frame, direction)

    async def push_frame(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        await super().push_frame(frame, direction)
        if isinstance(frame, FunctionCallResultFrame) and direction is FrameDirection.DOWNSTREAM:
            self.results.append(frame.result)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - other processes send no events
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(llm: CallingLLM, tools: ToolsSchema) -> AsyncIterator[PipelineTask]:
    """A pipeline that asks the model once; ended and over at the end of the block."""
    task = PipelineTask(Pipeline([llm]), cancel_on_idle_timeout=False)
    run = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
    await task.queue_frame(OpenAILLMContextFrame(OpenAILLMContext(tools=tools)))
    try:
        yield task
    finally:
        await task.queue_frame(EndFrame())
        await run


async def call(client: MCPClient, name: str, arguments: dict[str, Any] | None = None) -> Any:
    """Calls a tool the way a language model service does."""
    got: list[Any] = []

    async def keep(result: Any, **_: Any) -> None:
        got.append(result)

    await client._call_tool(
        FunctionCallParams(
            function_name=name,
            tool_call_id="1",
            arguments=arguments or {},
            llm=None,  # type: ignore[arg-type]
            context=OpenAILLMContext(),
            result_callback=keep,
        )
    )
    (result,) = got
    return result


@asynccontextmanager
async def serving(kind: str) -> AsyncIterator[str]:
    """A server on a free port of the loopback interface; gives its URL."""
    module_spec = importlib.util.spec_from_file_location("mcp_server", SERVER)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    server = module.build()
    app = server.sse_app() if kind == "sse" else server.streamable_http_app()
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1, ws="none"
    )
    uvicorn_server = uvicorn.Server(config)
    serve = asyncio.create_task(uvicorn_server.serve())
    await until(lambda: uvicorn_server.started)
    port = uvicorn_server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/{'sse' if kind == 'sse' else 'mcp'}"
    finally:
        uvicorn_server.should_exit = True
        await asyncio.wait({serve}, timeout=10)


async def test_tools_of_a_server_process_become_functions() -> None:
    llm = CallingLLM(("add", {"a": 20, "b": 22}))
    async with MCPClient(server_params=PACKAGE) as mcp:
        tools = await mcp.register_tools(llm)

        by_name = {tool.name: tool for tool in tools.standard_tools}
        assert by_name["add"].description == "Adds two numbers."
        assert by_name["add"].required == ["a"]
        assert by_name["add"].properties["a"]["type"] == "integer"
        assert all(llm.has_function(name) for name in by_name)

        async with running(llm, tools):
            await until(lambda: llm.results)
        assert llm.results == ["42"]
        said = await call(mcp, "describe", {"place": {"city": "Oslo", "near": ["Moss"]}})
        assert said == "Oslo lies near Moss"
        failed = await call(mcp, "fail")
        assert "out of paper" in failed["error"]
        wrong = await call(mcp, "add", {"a": "many"})
        assert "error" in wrong
        unknown = await call(mcp, "no such tool")
        assert "error" in unknown

        llm.simplify = True
        tools = await mcp.register_tools(llm)
        (describe,) = [tool for tool in tools.standard_tools if tool.name == "describe"]
        assert describe.properties["place"]["properties"]["city"]["type"] == "string"
        assert "additionalProperties" not in str(describe.properties)
        assert "$ref" not in str(describe.properties)


@pytest.mark.leaks(
    "tasks",
    reason="the event streams of the server in the test watch for its end until the loop does",
)
@pytest.mark.parametrize("kind", ["sse", "url", "http"])
async def test_tools_of_a_server_on_the_network(kind: str) -> None:
    async with serving("http" if kind == "http" else "sse") as url:
        params: Any = {
            "sse": SseServerParameters(url=url, headers={"X-Key": "1"}),
            "url": url,
            "http": StreamableHttpParameters(url=url, headers={"X-Key": "1"}),
        }[kind]
        async with MCPClient(params) as mcp:
            tools = await mcp.register_tools(CallingLLM())
            assert "add" in [tool.name for tool in tools.standard_tools]
            assert await call(mcp, "add", {"a": 1}) == "2"
            assert await asyncio.gather(*(call(mcp, "add", {"a": n}) for n in range(3))) == [
                "1",
                "2",
                "3",
            ]


async def test_a_model_that_runs_elsewhere_is_told_over_its_relay() -> None:
    posted: list[tuple[str, tuple[Any, ...]]] = []

    class Elsewhere:
        """The way to a service in another process."""

        async def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raise AssertionError("registering waits for nobody")

        def post(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            posted.append((method, args))

    llm = CallingLLM()
    llm._relay = Elsewhere()
    async with MCPClient(RAW) as mcp:
        tools = await mcp.register_tools(llm)
        assert [args[0] for method, args in posted] == [tool.name for tool in tools.standard_tools]
        assert {method for method, _ in posted} == {"_register"}
        # What the other process calls back is the client here.
        assert posted[0][1][1] is not None
        assert (await call(mcp, "pid")).isdigit()


async def test_what_a_tool_gives_is_what_the_model_sees() -> None:
    async with MCPClient(RAW) as mcp:
        assert await call(mcp, "nothing") == "The tool has ended and has nothing to say."
        assert await call(mcp, "data") == {"a": 1}
        assert await call(mcp, "mixed") == (
            "one\n[image, which cannot be shown here]\n[file:///x]\ntwo"
        )


async def test_a_tool_that_cannot_be_described_is_left_out() -> None:
    async with MCPClient(RAW) as mcp:
        tools = await mcp.register_tools(CallingLLM())
    names = [tool.name for tool in tools.standard_tools]
    assert names == ["pid", "die", "hang", "nothing", "mixed", "data"]


async def test_a_server_that_dies_in_a_call_is_an_error_and_the_next_call_has_a_new_one() -> None:
    async with MCPClient(RAW) as mcp:
        first = await call(mcp, "pid")
        dead = await call(mcp, "die")
        assert "die failed" in dead["error"]
        second = await call(mcp, "pid")
    assert first.isdigit()
    assert second.isdigit()
    assert first != second


async def test_a_server_that_died_meanwhile_is_replaced_before_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_mcp_connection, "_TRUSTED_SECS", 0.0)
    async with MCPClient(RAW) as mcp:
        first = int(await call(mcp, "pid"))
        server = psutil.Process(first)
        server.kill()
        await asyncio.to_thread(psutil.wait_procs, [server], 5)
        second = await call(mcp, "pid")
    assert int(second) not in (first, os.getpid())


async def test_a_call_that_takes_too_long_is_an_error() -> None:
    async with MCPClient(RAW, call_timeout_secs=0.2) as mcp:
        assert "timed out" in (await call(mcp, "hang"))["error"]
        mcp._call_timeout_secs = 20
        assert (await call(mcp, "pid")).isdigit()
    # Not only the second server is gone, the one that hung is too.
    assert not children()


def test_secrets_of_a_url_are_not_in_messages() -> None:
    error = ExceptionGroup(
        "", [OSError("cannot GET 'https://me:word@x.org/sse?key=secret' now: why? because")]
    )
    assert _mcp_connection.describe_failure(error) == (
        "cannot GET 'https://x.org/sse' now: why? because"
    )


async def test_an_interruption_leaves_the_connection(tmp_path: Path) -> None:
    started = tmp_path / "started"
    llm = CallingLLM(("hang", {"started": str(started)}))

    async with MCPClient(RAW) as mcp:
        tools = await mcp.register_tools(llm)
        before = await call(mcp, "pid")
        async with running(llm, tools) as task:
            await until(started.exists)
            await task.queue_frame(StartInterruptionFrame())
        assert await call(mcp, "pid") == before


async def test_cancelling_closes_the_server(tmp_path: Path) -> None:
    started = tmp_path / "started"

    async def work() -> None:
        async with MCPClient(RAW) as mcp:
            await call(mcp, "hang", {"started": str(started)})

    task = asyncio.create_task(work())
    await until(started.exists)
    assert children()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()


async def test_cancelling_while_it_connects_closes_the_server() -> None:
    silent = StdioServerParameters(
        command=sys.executable, args=["-c", "import sys; sys.stdin.read()"]
    )
    mcp = MCPClient(silent)
    task = asyncio.create_task(mcp.register_tools(CallingLLM()))
    await until(children)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()


def test_the_end_of_the_event_loop_closes_the_server() -> None:
    async def forgetful() -> None:
        await call(MCPClient(RAW), "pid")
        assert children()

    asyncio.run(forgetful())
    assert not children()


async def test_a_connection_nobody_uses_closes() -> None:
    mcp = MCPClient(RAW, idle_timeout_secs=0.1)
    first = await call(mcp, "pid")
    await until(lambda: not children())
    assert await call(mcp, "pid") != first
    await mcp.cleanup()


@pytest.mark.parametrize(
    "params",
    [
        StdioServerParameters(command="/no/such/program"),
        StdioServerParameters(command=sys.executable, args=["-c", "raise SystemExit(1)"]),
        SseServerParameters(url="http://127.0.0.1:1/sse"),
        StreamableHttpParameters(url="http://127.0.0.1:1/mcp"),
    ],
)
async def test_a_server_that_cannot_be_reached_is_a_clear_error(params: Any) -> None:
    with pytest.raises(ServiceError, match="MCP server") as caught:
        await MCPClient(params).register_tools(CallingLLM())
    assert caught.value.provider == "mcp"


async def test_a_silent_server_is_given_up() -> None:
    silent = StdioServerParameters(
        command=sys.executable, args=["-c", "import sys; sys.stdin.read()"]
    )
    with pytest.raises(ServiceError, match=r"did not answer within 0\.3 s"):
        await MCPClient(silent, connect_timeout_secs=0.3).register_tools(CallingLLM())


@pytest.mark.parametrize("params", ["not a url", 5, None, {"url": "http://x"}])
def test_other_parameters_are_refused_at_once(params: Any) -> None:
    with pytest.raises(ConfigError, match="MCPClient"):
        MCPClient(params)


def test_references_are_replaced_by_what_they_stand_for() -> None:
    properties, required = function_parameters(
        {
            "properties": {"tree": {"$ref": "#/$defs/Tree", "description": "A tree."}},
            "required": ["tree"],
            "$defs": {
                "Tree": {
                    "type": "object",
                    "properties": {"children": {"items": {"$ref": "#/$defs/Tree"}}},
                }
            },
        }
    )
    assert required == ["tree"]
    assert properties == {
        "tree": {
            "type": "object",
            "description": "A tree.",
            "properties": {"children": {"items": {}}},
        }
    }


def test_references_that_lead_nowhere_or_multiply_are_refused() -> None:
    with pytest.raises(ValueError, match="not in it"):
        function_parameters({"properties": {"a": {"$ref": "http://elsewhere/x"}}})
    bomb = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 10} for n in range(10)} | {
        "d10": {"type": "string"}
    }
    with pytest.raises(ValueError, match="more than"):
        function_parameters({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": bomb})


def test_a_property_may_be_called_like_a_keyword() -> None:
    plain = without_additional_properties(
        {
            "additionalProperties": {"type": "boolean", "additionalProperties": False},
            "b": {"anyOf": [{"type": "object", "additionalProperties": True}]},
        }
    )
    assert plain == {
        "additionalProperties": {"type": "boolean"},
        "b": {"anyOf": [{"type": "object"}]},
    }
