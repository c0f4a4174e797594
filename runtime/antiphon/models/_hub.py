"""The hub that model files come from: what a repository holds, and its bytes.

The hub's own client neither goes on with a download that another process began nor compares
checksums. Both are done here, over the two requests that this takes.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from loguru import logger

from antiphon.errors import ConfigError, ServiceError

if TYPE_CHECKING:
    import aiohttp

_PROVIDER = "hugging face"
_REVISION = "main"
_PIECE_BYTES = 1 << 20
_CONNECT_SECS = 10.0
# Without a byte for so long, a connection counts as broken.
_READ_SECS = 30.0
# Connections in a row that brought nothing.
_MAX_FAILURES = 5
_FIRST_PAUSE_SECS = 0.25
_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository, as the hub describes it.

    Attributes:
        path: Its path in the repository.
        size: In bytes.
        algorithm: What the sum is made with: ``sha256``, or ``git`` for files that git holds itself.
        digest: The sum, in hexadecimal.
    """

    path: str
    size: int
    algorithm: str
    digest: str

    def new_sum(self) -> Any:
        """Makes an empty sum, to be updated with the content."""
        if self.algorithm == "git":
            # Git's name of a content: a sum over a header and the content.
            return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        return hashlib.sha256()

    def is_at(self, path: Path) -> bool:
        """Whether a local file has exactly this content. Reads all of it."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        digest = self.new_sum()
        with path.open("rb") as file:
            _feed(digest, file)
        return bool(digest.hexdigest() == self.digest)


def endpoint() -> str:
    """Address of the hub: ``HF_ENDPOINT``, or the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


class Hub:
    """A connection to the hub; an async context manager."""

    def __init__(self) -> None:
        """Opens nothing."""
        self._opened: aiohttp.ClientSession | None = None

    @property
    def _client(self) -> aiohttp.ClientSession:
        assert self._opened is not None, "used outside of its `async with`"
        return self._opened

    async def __aenter__(self) -> Hub:
        import aiohttp

        token = _token()
        self._opened = aiohttp.ClientSession(
            # aiohttp leaves it out where the hub redirects to another host.
            headers={"Authorization": f"Bearer {token}"} if token else None,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=_CONNECT_SECS, sock_read=_READ_SECS
            ),
            trust_env=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def describe(self, repo: str, paths: Sequence[str]) -> list[RemoteFile]:
        """Asks for sizes and sums of files; those that the repository does not have are left out.

        Raises:
            ConfigError: The hub has no such repository, or does not let us read it.
            ServiceError: The hub cannot be reached, or failed.
        """
        import aiohttp

        url = f"{endpoint()}/api/models/{repo}/paths-info/{_REVISION}"
        try:
            async with self._client.post(url, json={"paths": list(paths)}) as response:
                if response.status in (401, 403, 404):
                    raise ConfigError(
                        f"{endpoint()} has no repository {repo} that may be read "
                        f"(status {response.status}): check the name, and HF_TOKEN if it is private"
                    )
                if response.status != HTTPStatus.OK:
                    raise _failure(f"answered with status {response.status}")
                entries = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError) as error:
            raise _failure(f"cannot be reached ({type(error).__name__})") from error
        try:
            return [_described(entry) for entry in entries if entry["type"] == "file"]
        except (KeyError, TypeError, ValueError) as error:
            raise _failure(f"gave an answer that is not understood ({error!r})") from error

    async def download(
        self, repo: str, file: RemoteFile, target: Path, on_bytes: Callable[[int], None]
    ) -> None:
        """Brings a file here; what an earlier attempt left is gone on with.

        The file appears at its place whole and with the right sum, or not at all. If this is
        cancelled, what has come so far stays for the next attempt.

        Args:
            repo: The repository.
            file: Which of its files.
            target: Where it is to lie.
            on_bytes: Called again and again with the number of bytes that are here.

        Raises:
            ServiceError: The hub cannot be reached or failed, or the sum is wrong.
            OSError: It cannot be written.
        """
        import aiohttp

        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{file.digest[:16]}.partial")
        digest = file.new_sum()
        with partial.open("a+b") as output:
            output.seek(0)
            _feed(digest, output)
            on_bytes(farthest := output.tell())
            failures = 0
            while output.tell() < file.size:
                cause: BaseException | None = None
                try:
                    goes_on = await self._receive(repo, file, output, digest, on_bytes)
                except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                    goes_on, cause = True, error
                if output.tell() > farthest:
                    farthest, failures = output.tell(), 0
                elif (failures := failures + 1) >= _MAX_FAILURES:
                    raise _failure(
                        f"did not send all of {file.path} of {repo} "
                        f"({type(cause).__name__}); the next attempt goes on from there"
                    ) from cause
                if not goes_on:
                    output.seek(0)
                    output.truncate()
                    digest = file.new_sum()
                if output.tell() < file.size:
                    logger.warning("download broken off, going on", repo=repo, file=file.path)
                    await asyncio.sleep(_FIRST_PAUSE_SECS * 2**failures)
        if digest.hexdigest() != file.digest:
            partial.unlink()
            raise _failure(
                f"sent a {file.path} of {repo} with a wrong checksum. It was thrown away: try again"
            )
        partial.replace(target)

    async def _receive(
        self,
        repo: str,
        file: RemoteFile,
        output: BinaryIO,
        digest: Any,
        on_bytes: Callable[[int], None],
    ) -> bool:
        """Appends what one request brings.

        Returns:
            Whether the hub goes on from where we are; if not, nothing was appended.

        Raises:
            ServiceError: The hub does not have the file, or does not give it to us.
            aiohttp.ClientError: The connection failed, or the hub is in trouble.
        """
        position = output.tell()
        # Sizes and ranges are those of the file itself.
        headers = {"Accept-Encoding": "identity"}
        if position:
            headers["Range"] = f"bytes={position}-"
        url = f"{endpoint()}/{repo}/resolve/{_REVISION}/{quote(file.path)}"
        async with self._client.get(url, headers=headers) as response:
            if position and response.status in (
                HTTPStatus.OK,
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            ):
                return False
            if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status in _LATER:
                response.raise_for_status()
            if response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                raise _failure(f"answered with status {response.status} to {file.path} of {repo}")
            async for piece in response.content.iter_chunked(_PIECE_BYTES):
                wanted = piece[: file.size - output.tell()]
                output.write(wanted)
                digest.update(wanted)
                on_bytes(output.tell())
        return True


def _described(entry: Any) -> RemoteFile:
    """Understands an entry of the hub's answer: files that git only points to have an ``lfs``."""
    if large := entry.get("lfs"):
        return RemoteFile(entry["path"], int(large["size"]), "sha256", str(large["oid"]))
    return RemoteFile(entry["path"], int(entry["size"]), "git", str(entry["oid"]))


def _feed(digest: Any, file: BinaryIO) -> None:
    while piece := file.read(_PIECE_BYTES):
        digest.update(piece)


def _token() -> str | None:
    """The user's token: of the environment, or kept by the hub's own tools where they are."""
    if token := os.environ.get("HF_TOKEN"):
        return token
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    import huggingface_hub

    return huggingface_hub.get_token()


def _failure(what: str) -> ServiceError:
    return ServiceError(f"{endpoint()} {what}", retryable=True, provider=_PROVIDER)
