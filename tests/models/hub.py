"""A hub of model files on this machine, as far as a download needs it, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_LARGE_BYTES = 1000


class FakeHub:
    """Serves repositories. A context manager.

    Attributes:
        files: Contents, by repository and path.
        requests: Method, path and Range header of each request.
        authorizations: Authorization header of each request.
        cut_after: How many bytes of each answer are sent before the connection is cut; None: all.
        hold: Waited for before a connection is cut.
        cutting: Set when all is sent of an answer that will be cut.
        wrong: Paths of files whose content is sent with one byte changed.
        status: What every request is answered with instead, if it is not 200.
        redirect_to: The address that files are sent from, if it is another.
        ignores_ranges: Whether a file is always sent from its beginning.
        on_file: Called before a file is sent.
    """

    def __init__(self, files: dict[str, dict[str, bytes]]) -> None:
        self.files = files
        self.requests: list[tuple[str, str, str | None]] = []
        self.authorizations: list[str | None] = []
        self.cut_after: int | None = None
        self.wrong: set[str] = set()
        self.status = 200
        self.redirect_to = ""
        self.ignores_ranges = False
        self.hold = threading.Event()
        self.hold.set()
        self.cutting = threading.Event()
        self.on_file: Callable[[], object] = lambda: None
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def sent(self) -> list[str]:
        """Paths of the files that were asked for, in order."""
        return [path.split("/resolve/main/")[1] for kind, path, _ in self.requests if kind == "GET"]

    def describe(self, repo: str, path: str) -> dict[str, Any]:
        """An entry of the hub's answer: large files have the sum of their content."""
        content = self.files[repo][path]
        size = len(content)
        git = hashlib.sha1(b"blob %d\0" % size + content, usedforsecurity=False).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": git}
        if size >= _LARGE_BYTES:
            oid = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": oid, "size": size, "pointerSize": 130}
            entry["oid"] = "0" * 40
        return entry


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that leaves is no news


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            repo = self.path.removeprefix("/api/models/").removesuffix("/paths-info/main")
            if self._noted() or self._refused(repo):
                return
            found = [p for p in json.loads(body)["paths"] if p in hub.files[repo]]
            answer = [hub.describe(repo, path) for path in found]
            self._send(200, json.dumps(answer).encode())

        def do_GET(self) -> None:
            repo, _, path = self.path.removeprefix("/").partition("/resolve/main/")
            hub.on_file()
            if self._noted() or self._refused(repo):
                return None
            if hub.redirect_to:
                self.send_response(302)
                self.send_header("Location", hub.redirect_to + self.path)
                return self._body(b"")
            content = hub.files[repo].get(path)
            if content is None:
                return self._send(404, b"")
            if path in hub.wrong:
                content = content[:-1] + bytes([content[-1] ^ 1])
            asked = self.headers["Range"]
            if not asked or hub.ignores_ranges:
                return self._send(200, content)
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                return self._send(416, b"")
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            return self._body(content[begin:])

        def _noted(self) -> bool:
            hub.requests.append((self.command, self.path, self.headers["Range"]))
            hub.authorizations.append(self.headers["Authorization"])
            if hub.status != 200:
                self._send(hub.status, b"")
            return hub.status != 200

        def _refused(self, repo: str) -> bool:
            if repo not in hub.files:
                self._send(404, b"")
            return repo not in hub.files

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self._body(content)

        def _body(self, content: bytes) -> None:
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            cut = hub.cut_after if self.command == "GET" else None
            if cut is not None and cut < len(content):
                self.wfile.write(content[:cut])
                self.wfile.flush()
                hub.cutting.set()
                hub.hold.wait(30)
                self.close_connection = True
            else:
                self.wfile.write(content)

    return Handler
