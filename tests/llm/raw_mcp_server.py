"""A small MCP server that misbehaves on request: line by line JSON-RPC over standard streams.

Written without the package, which takes seconds to import.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

TOOLS = ["pid", "die", "hang", "nothing", "mixed", "data", "odd schema"]


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "raw", "version": "1"},
        }
    if method == "tools/list":
        # Two pages.
        first = "cursor" not in params
        names = TOOLS[:3] if first else TOOLS[3:]
        tools = [{"name": name, "inputSchema": schema(name)} for name in names]
        return {"tools": tools, "nextCursor": "more"} if first else {"tools": tools}
    if method == "tools/call":
        return call(params["name"], params.get("arguments") or {})
    return {}


def schema(name: str) -> dict[str, Any]:
    if name == "odd schema":
        return {"type": "object", "properties": {"a": {"type": "whatever"}}}
    return {"type": "object"}


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    if name == "die":
        os._exit(3)
    if name == "hang":
        if "started" in arguments:
            Path(arguments["started"]).touch()
        return None
    if name == "data":
        return {"content": [], "structuredContent": {"a": 1}}
    if name == "mixed":
        return {
            "content": [
                {"type": "text", "text": "one"},
                {"type": "image", "data": "AA==", "mimeType": "image/png"},
                {"type": "resource_link", "uri": "file:///x", "name": "x"},
                {"type": "resource", "resource": {"uri": "file:///y", "text": "two"}},
            ]
        }
    texts = [str(os.getpid())] if name == "pid" else []
    return {"content": [{"type": "text", "text": text} for text in texts]}


for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    result = answer(request["method"], request.get("params") or {})
    if result is not None:
        reply = {"jsonrpc": "2.0", "id": request["id"], "result": result}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
