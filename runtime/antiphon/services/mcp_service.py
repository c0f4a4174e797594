"""Tools of servers that speak the Model Context Protocol (MCP)."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from loguru import logger

from antiphon.adapters.schemas.function_schema import FunctionSchema
from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.errors import ConfigError, ServiceError
from antiphon.services._mcp_connection import MCPConnection, describe_failure
from antiphon.services._mcp_schema import function_parameters, without_additional_properties
from antiphon.utils.base_object import BaseObject

if TYPE_CHECKING:
    from mcp import StdioServerParameters
    from mcp.client.session_group import SseServerParameters, StreamableHttpParameters
    from mcp.types import CallToolResult, Tool

    from antiphon.services.llm_service import FunctionCallParams, LLMService

_MAX_PAGES = 100
"""Pages of a server's list of tools that are read at most."""

_NO_RESULT = "The tool has ended and has nothing to say."
"""What the model is told then: with an empty result the model would not answer at all."""


class MCPClient(BaseObject):
    """Offers the tools of one MCP server to a language model, and calls them for it.

    The connection (for ``StdioServerParameters``: the server process) lives in the process of the
    bot, wherever the language model runs. It opens at the first use and serves all calls; after a
    failure the next call opens a new one. It closes with :meth:`close`, at the end of ``async
    with``, when it was not used for a while, and with the event loop.
    """

    def __init__(
        self,
        server_params: str | StdioServerParameters | SseServerParameters | StreamableHttpParameters,
        *,
        connect_timeout_secs: float = 30.0,
        call_timeout_secs: float = 60.0,
        idle_timeout_secs: float = 300.0,
        **kwargs: Any,
    ) -> None:
        """Keeps the parameters; nothing is started or opened.

        Args:
            server_params: How to reach the server: a URL (of a server that speaks SSE), or one
                of the parameter classes of the package ``mcp``.
            connect_timeout_secs: Longest time for starting the server and greeting it.
            call_timeout_secs: Longest time of one call of a tool.
            idle_timeout_secs: After this long without a call the connection closes.
            **kwargs: Passed on to ``BaseObject``.

        Raises:
            ConfigError: The package ``mcp`` is not installed, or the parameters are none of those.
        """
        super().__init__(**kwargs)
        if importlib.util.find_spec("mcp") is None:
            raise ConfigError("MCPClient needs the package mcp: pip install 'antiphon[mcp]'")
        self._server_params = _parameters(server_params)
        self._connect_timeout_secs = connect_timeout_secs
        self._call_timeout_secs = call_timeout_secs
        self._idle_timeout_secs = idle_timeout_secs
        self._connection: MCPConnection | None = None
        # Connections that failed and still close; each has a few seconds for that.
        self._retired: list[MCPConnection] = []
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Opens nothing yet; the end of the block closes."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the connection."""
        await self.close()

    async def close(self) -> None:
        """Closes the connection and ends a server process; a later call would open a new one.

        If cancelled, closing goes on in the background.
        """
        connections, self._retired = self._retired, []
        if self._connection is not None:
            connections.append(self._connection)
            self._connection = None
        await asyncio.gather(*(connection.close() for connection in connections))

    async def cleanup(self) -> None:
        """Closes the connection."""
        await self.close()
        await super().cleanup()

    async def register_tools(self, llm: LLMService) -> ToolsSchema:
        """Registers every tool of the server as a function of a language model.

        A tool whose description cannot be used is left out, with a warning.

        Args:
            llm: The language model service.

        Returns:
            The schemas of the tools, for the context.

        Raises:
            ServiceError: The server cannot be reached or does not answer.
        """
        connection = await self._connected()
        try:
            tools = await self._list_tools(connection)
        except Exception as error:
            connection.retire()
            raise ServiceError(
                f"{self} cannot read the tools of {connection.target}: {describe_failure(error)}",
                retryable=True,
                provider="mcp",
            ) from error

        schemas: list[FunctionSchema] = []
        for tool in tools:
            try:
                schema = self._schema(tool, simplify=llm.needs_mcp_alternate_schema())
            except (ConfigError, ValueError, RecursionError) as error:
                logger.warning(
                    "an MCP tool is left out", client=self.name, tool=tool.name, reason=str(error)
                )
                continue
            llm.register_function(tool.name, self._call_tool)
            schemas.append(schema)
        logger.debug("MCP tools registered", client=self.name, tools=len(schemas))
        return ToolsSchema(standard_tools=schemas)

    async def _connected(self) -> MCPConnection:
        async with self._opening:
            if self._connection is not None and not await self._connection.alive():
                self._retired = [old for old in self._retired if not old.closed]
                self._retired.append(self._connection)
                self._connection = None
            if self._connection is None:
                self._connection = await MCPConnection.open(
                    self._server_params,
                    timeout_secs=self._connect_timeout_secs,
                    idle_timeout_secs=self._idle_timeout_secs,
                )
            return self._connection

    async def _list_tools(self, connection: MCPConnection) -> list[Tool]:
        from mcp.types import PaginatedRequestParams

        tools: list[Tool] = []
        cursor: str | None = None
        with connection.in_use() as session:
            async with asyncio.timeout(self._call_timeout_secs):
                for _ in range(_MAX_PAGES):
                    params = PaginatedRequestParams(cursor=cursor) if cursor else None
                    page = await session.list_tools(params=params)
                    tools += page.tools
                    cursor = page.next_cursor
                    if not cursor:
                        break
        return tools

    def _schema(self, tool: Tool, *, simplify: bool) -> FunctionSchema:
        properties, required = function_parameters(tool.input_schema)
        if simplify:
            properties = without_additional_properties(properties)
        return FunctionSchema(
            name=tool.name,
            description=tool.description or tool.title or tool.name,
            properties=properties,
            required=required,
        )

    async def _call_tool(self, params: FunctionCallParams) -> None:
        """Runs a tool; the model gets its result, or what went wrong."""
        await params.result_callback(await self._run(params.function_name, params.arguments))

    async def _run(self, name: str, arguments: Mapping[str, Any]) -> Any:
        connection: MCPConnection | None = None
        try:
            connection = await self._connected()
            with connection.in_use() as session:
                result = await session.call_tool(
                    name, dict(arguments), read_timeout_seconds=self._call_timeout_secs
                )
        except Exception as error:  # noqa: BLE001 - any failure is an answer for the model
            # Whether the tool has run cannot be known, so the call is not tried again.
            if connection is not None:
                connection.retire()
            logger.error(
                "MCP tool failed", client=self.name, tool=name, reason=describe_failure(error)
            )
            return {"error": f"the tool {name} failed: {describe_failure(error)}"}
        return _plain_result(result)


def _parameters(given: Any) -> Any:
    if isinstance(given, str):
        if not given.startswith(("http://", "https://")):
            raise ConfigError(f"MCPClient: not the URL of a server: {given!r}")
        from mcp.client.session_group import SseServerParameters

        return SseServerParameters(url=given)

    from mcp import StdioServerParameters
    from mcp.client.session_group import SseServerParameters, StreamableHttpParameters

    if not isinstance(
        given, (StdioServerParameters, SseServerParameters, StreamableHttpParameters)
    ):
        raise ConfigError(
            "MCPClient takes a URL, StdioServerParameters, SseServerParameters or "
            f"StreamableHttpParameters, not {type(given).__name__}"
        )
    return given


def _plain_result(result: CallToolResult) -> Any:
    """What a tool gave, as the model is to see it: text, else structured data."""
    texts = [text for block in result.content if (text := _text_of(block))]
    text = "\n".join(texts)
    if result.is_error:
        return {"error": text or "the tool reports an error"}
    if not text and result.structured_content is not None:
        return result.structured_content
    return text or _NO_RESULT


def _text_of(block: Any) -> str:
    if block.type == "text":
        return str(block.text)
    if block.type == "resource":
        return str(getattr(block.resource, "text", None) or f"[{block.resource.uri}]")
    if block.type == "resource_link":
        return f"[{block.uri}]"
    return f"[{block.type}, which cannot be shown here]"
