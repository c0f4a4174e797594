"""Who issues the certificates of a cluster's nodes, and how a node keeps its own fresh.

The first node agent of a cluster has the `Issuer`. Each node agent, this one too, has a
`NodeCertificate`: it makes a key, which never leaves the node, has the public half certified, and
writes both where the processes of its node read them. They use what is new for new links.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loguru import logger

from antiphon_actors.certificates import (
    AUTHORITY_FILE,
    AUTHORITY_VALIDITY,
    CERTIFICATE_VALIDITY,
    CLOCK_SKEW,
    ClusterAuthority,
    PrivateKey,
    install,
)
from antiphon_actors.channels.credentials import Identity
from antiphon_actors.channels.errors import CredentialsError
from antiphon_actors.session.network import ROLE

# A certificate is renewed when so much of its validity is left, and then tried for so often.
_RENEWAL_SHARE = 1 / 3
_RETRIES = 20
_RETRY_LIMIT_SECS = 60.0
# Wall clocks jump: none is trusted for longer.
_LOOK_SECS = 3600.0
_CERTIFY_DEADLINE_SECS = 20.0


@dataclass(frozen=True, slots=True)
class Certified:
    """What a node gets from the issuer; nothing of it is secret.

    Attributes:
        certificate_pem: For the key it has shown.
        authorities_pem: Whom it is to trust.
    """

    certificate_pem: bytes
    authorities_pem: bytes


class Issuer:
    """The authority of a cluster, replaced by a successor before it expires.

    A successor is trusted for the length of a certificate's validity before it issues: by then every
    node has renewed, so each trusts what the others show.

    Args:
        cluster: Name of the cluster.
        directory: Where the authority is kept (mode 0700, file 0600) and found again; None keeps it
            in memory alone.
        validity: Of certificates. At most a tenth of the authority's.
        authority_validity: Of an authority.
    """

    def __init__(
        self,
        cluster: str,
        *,
        directory: Path | None = None,
        validity: timedelta = CERTIFICATE_VALIDITY,
        authority_validity: timedelta = AUTHORITY_VALIDITY,
    ) -> None:
        if validity > authority_validity / 10:
            raise ValueError("certificates would be valid for too much of their authority's time")
        self._directory = directory
        self._validity = validity
        self._authority_validity = authority_validity
        self._successor: tuple[ClusterAuthority, datetime] | None = None
        if directory is not None and (directory / AUTHORITY_FILE).exists():
            self._authority = ClusterAuthority.load(directory)
        else:
            self._authority = ClusterAuthority.create(cluster, validity=authority_validity)
            self._save()

    def certify(
        self, node: str, host: str, public_key_pem: bytes, *, now: datetime | None = None
    ) -> Certified:
        """Issues a certificate for a node's key.

        Args:
            node: Name of the node.
            host: Its IP address.
            public_key_pem: Its public key.
            now: The time, unless it is the present.

        Raises:
            ValueError: The name or the key cannot be used.
        """
        now = now or datetime.now(UTC)
        self._succeed(now)
        certificate = self._authority.certify(
            Identity(self._authority.cluster, ROLE, node),
            public_key_pem,
            addresses=[host],
            validity=self._validity,
            not_before=now - CLOCK_SKEW,
        )
        trusted = self._successor[0] if self._successor is not None else self._authority
        return Certified(certificate, trusted.bundle_pem)

    def _succeed(self, now: datetime) -> None:
        authority = self._authority
        left = authority.certificate.not_valid_after_utc - now
        if self._successor is None and left < self._authority_validity / 3:
            successor = authority.successor(
                validity=self._authority_validity, not_before=now - CLOCK_SKEW
            )
            self._successor = successor, now + self._validity
            logger.info("an authority has a successor", cluster=authority.cluster)
        elif self._successor is not None and now >= self._successor[1]:
            self._authority, self._successor = self._successor[0], None
            self._save()
            logger.info("a new authority issues certificates", cluster=authority.cluster)
        predecessors = self._authority.predecessors
        if predecessors and all(now >= each.not_valid_after_utc for each in predecessors):
            self._authority = self._authority.without_predecessors()
            self._save()

    def _save(self) -> None:
        if self._directory is not None:
            self._authority.save(self._directory)


Certify = Callable[[bytes], Awaitable[Certified]]


class NodeCertificate:
    """The certificate of one node, renewed in time.

    Args:
        directory: Where the node's processes read it; mode 0700, made if needed.
        certify: Has a public key (PEM) certified.
        clock: Seconds since 1970.
    """

    def __init__(
        self, directory: Path, certify: Certify, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._directory = directory
        self._certify = certify
        self._clock = clock
        self._lock = asyncio.Lock()
        self._began = 0.0
        self._expires = 0.0
        self._keeper: asyncio.Task[None] | None = None

    @property
    def expires(self) -> float:
        """When the present one expires, in seconds since 1970; 0 while there is none."""
        return self._expires

    async def ready(self) -> None:
        """Sees to it that there is one, and that it is kept fresh until `aclose`.

        Raises:
            CredentialsError: None can be had; why.
        """
        if self._expires == 0.0:
            await self.renew(unless_present=True)
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(
                self._keep_fresh(), name="node certificate"
            )

    async def renew(self, *, unless_present: bool = False) -> None:
        """Replaces the certificate and its key now; a failure leaves the old ones.

        Args:
            unless_present: Does nothing if there is one.

        Raises:
            CredentialsError: It is not to be had; why.
        """
        async with self._lock:
            if unless_present and self._expires:
                return
            key = PrivateKey()
            try:
                async with asyncio.timeout(_CERTIFY_DEADLINE_SECS):
                    certified = await self._certify(key.public_pem)
                issued = key.with_certificate(certified.certificate_pem)
            except (TimeoutError, ValueError) as error:
                why = str(error) or f"no answer within {_CERTIFY_DEADLINE_SECS:g} s"
                raise CredentialsError(f"no certificate for this node: {why}") from error
            install(self._directory, issued, certified.authorities_pem)
            self._began = self._clock()
            self._expires = issued.not_after.timestamp()
            logger.info("node certificate renewed", identity=issued.identity.uri)

    async def aclose(self) -> None:
        """Renews no more."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])

    def pause_secs(self) -> float:
        """How long the present certificate need not be renewed."""
        due = self._expires - (self._expires - self._began) * _RENEWAL_SHARE
        return due - self._clock()

    async def _keep_fresh(self) -> None:
        while True:
            pause = self.pause_secs()
            if pause > 0:
                await asyncio.sleep(min(pause, _LOOK_SECS))
                continue
            try:
                await self.renew()
            except CredentialsError as error:
                left = (self._expires - self._began) * _RENEWAL_SHARE
                logger.error("node certificate not renewed", error=str(error))
                await asyncio.sleep(min(left / _RETRIES, _RETRY_LIMIT_SECS))
