"""An MCP server with a few tools; run as a program it talks over its standard streams."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel


class Place(BaseModel):
    city: str
    near: list[str] = []


def build() -> MCPServer:
    server = MCPServer("tools for tests", log_level="CRITICAL")

    @server.tool()
    def add(a: int, b: int = 1) -> str:
        """Adds two numbers."""
        return str(a + b)

    @server.tool(structured_output=False)
    def describe(place: Place, other: Place | None = None) -> str:
        """Describes a place."""
        return f"{place.city} lies near {', '.join(place.near)}"

    @server.tool(structured_output=False)
    def fail() -> str:
        """Fails."""
        raise ToolError("out of paper")

    return server


if __name__ == "__main__":
    build().run("stdio")
