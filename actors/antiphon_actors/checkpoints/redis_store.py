"""Checkpoints in Redis: they outlive a Ray cluster, and Redis forgets them by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from antiphon.errors import ConfigError
from antiphon_actors.checkpoints.store import KEPT_SECS, CheckpointStore
from antiphon_actors.errors import CheckpointStoreError

if TYPE_CHECKING:
    from redis.asyncio import Redis

DEADLINE_SECS = 5.0
_PREFIX = "antiphon:checkpoint:"


class RedisStore(CheckpointStore):
    """Keeps checkpoints in a Redis server, under keys that begin with ``antiphon:checkpoint:``."""

    def __init__(self, url: str) -> None:
        """Makes a store; the connection is made with the first call.

        Args:
            url: ``redis://[user:password@]host[:port][/database]``, ``rediss://`` for TLS (the
                server's certificate is checked; ``?ssl_ca_certs=FILE`` names an authority of your own),
                or ``unix://[user:password@]/path``. It is never shown.

        Raises:
            ConfigError: It is no such URL, or the package is missing.
        """
        self._where = _describe(url)
        try:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as error:
            raise ConfigError("a store in Redis needs: pip install antiphon[redis]") from error
        try:
            self._redis: Redis = Redis.from_url(
                url,
                socket_timeout=DEADLINE_SECS,
                socket_connect_timeout=DEADLINE_SECS,
                # A connection may have gone since it was last used; who waits longer is up to us.
                retry=Retry(NoBackoff(), 1),
            )
        except (TypeError, ValueError):
            # Its message may hold the URL.
            raise ConfigError(f"the URL of the Redis at {self._where} cannot be used") from None

    def __repr__(self) -> str:
        return f"<RedisStore at {self._where}>"

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()

    async def _put(self, key: str, value: bytes) -> None:
        await self._do("set", _PREFIX + key, value, ex=int(KEPT_SECS))

    async def _get(self, key: str) -> bytes | None:
        value: bytes | None = await self._do("get", _PREFIX + key)
        return value

    async def _delete(self, key: str) -> None:
        await self._do("delete", _PREFIX + key)

    async def _list(self, prefix: str) -> Sequence[str]:
        pattern = _PREFIX + "".join(f"\\{c}" if c in "*?[]\\" else c for c in prefix) + "*"
        found: set[str] = set()
        cursor = 0
        while True:
            cursor, keys = await self._do("scan", cursor, match=pattern, count=1000)
            found |= {key.decode().removeprefix(_PREFIX) for key in keys}
            if not cursor:
                return list(found)

    async def _do(self, command: str, *arguments: Any, **options: Any) -> Any:
        from redis.exceptions import RedisError

        try:
            return await getattr(self._redis, command)(*arguments, **options)
        except (RedisError, OSError) as error:
            # Text of the server or the system, which do not know the password.
            raise CheckpointStoreError(
                f"the Redis at {self._where} failed: {type(error).__name__}: {error}"
            ) from error


def _describe(url: str) -> str:
    """Where a Redis is, without who asks and how.

    Raises:
        ConfigError: It is no URL of one.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix" and parts.path:
            return parts.path
        if parts.scheme in ("redis", "rediss") and parts.hostname:
            return f"{parts.hostname}:{parts.port or 6379}"
    except ValueError:
        pass
    raise ConfigError(
        "the URL of a Redis is redis://HOST, rediss://HOST or unix:///PATH; what was given is not"
    )
