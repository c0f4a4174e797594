"""Who may use a gateway: API keys, and the tickets that `/connect` hands out."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from cryptography.fernet import Fernet, InvalidToken
from starlette.requests import HTTPConnection

from antiphon.errors import ConfigError
from antiphon_actors.gateway.refusal import Refusal

TICKET_SECS = 60
"""How long a ticket is valid."""

MIN_KEY_LENGTH = 16

_TOKEN = "token"  # noqa: S105 - the name of a parameter
_CREDENTIAL_HEADERS = frozenset({b"authorization", b"x-api-key"})


def new_key() -> str:
    """Returns an API key of 256 random bits."""
    return secrets.token_urlsafe(32)


def new_secret() -> str:
    """Returns a key for tickets."""
    return Fernet.generate_key().decode()


def hash_key(key: str) -> str:
    """Returns what a gateway has to know of an API key.

    Raises:
        ConfigError: The key could be guessed.
    """
    if len(key) < MIN_KEY_LENGTH:
        raise ConfigError(
            f"an API key needs at least {MIN_KEY_LENGTH} characters; leave it out to have one made"
        )
    # A slow hash would protect keys that people think of; these are long and random.
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Ticket:
    """What `/connect` was told, for the WebSocket that follows.

    Attributes:
        app: The bot it is for.
        body: Data of the request.
    """

    app: str
    body: Mapping[str, Any]


class Access:
    """Checks who connects.

    A key comes as ``Authorization: Bearer KEY``, as ``X-API-Key: KEY`` or as ``?token=KEY``: a browser
    can give a WebSocket nothing but the last. There a ticket serves as well, which says what
    `/connect` was told. Tickets are encrypted and signed, so every gateway with the same secret
    takes them, and none has to keep any.
    """

    def __init__(self, key_hash: str, secret: str) -> None:
        """Makes it.

        Args:
            key_hash: Of the API key (`hash_key`); empty to let everybody in.
            secret: Of the tickets (`new_secret`).
        """
        self._key_hash = key_hash
        self._fernet = Fernet(secret)

    def check(self, connection: HTTPConnection) -> None:
        """Lets a request through that has the key.

        Raises:
            Refusal: It has none, or another.
        """
        if self._key_hash and not self._is_key(_presented(connection)):
            raise _unauthorized()

    def admit(self, connection: HTTPConnection, app: str) -> Mapping[str, Any]:
        """Lets a caller through that has the key or a ticket for a bot.

        Returns:
            What the session's request said.

        Raises:
            Refusal: It has neither.
        """
        presented = _presented(connection)
        ticket = self._read(presented)
        if ticket is not None and ticket.app == app:
            return ticket.body
        if self._key_hash and not self._is_key(presented):
            raise _unauthorized()
        return {}

    def issue(self, ticket: Ticket) -> str:
        """Returns a ticket as text for a URL."""
        plain = json.dumps({"app": ticket.app, "body": ticket.body}, ensure_ascii=False)
        return self._fernet.encrypt(plain.encode()).decode()

    def _read(self, text: str) -> Ticket | None:
        try:
            plain = json.loads(self._fernet.decrypt(text.encode(), ttl=TICKET_SECS))
        except (InvalidToken, ValueError):
            return None
        return Ticket(plain["app"], plain["body"])

    def _is_key(self, presented: str) -> bool:
        found = hashlib.sha256(presented.encode()).hexdigest()
        return hmac.compare_digest(found, self._key_hash)


def _presented(connection: HTTPConnection) -> str:
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return connection.headers.get("x-api-key") or connection.query_params.get(_TOKEN, "")


def without_credentials(connection: HTTPConnection) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Returns query and headers of a request for others to see."""
    pairs = connection.scope["query_string"].split(b"&")
    query = b"&".join(pair for pair in pairs if unquote(pair.partition(b"=")[0]) != _TOKEN)
    headers = [(k, v) for k, v in connection.scope["headers"] if k not in _CREDENTIAL_HEADERS]
    return query, headers


def _unauthorized() -> Refusal:
    return Refusal(
        401,
        "no valid API key",
        "send the key as `Authorization: Bearer KEY`, `X-API-Key: KEY` or `?token=KEY`",
    )
