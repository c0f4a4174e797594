"""The checkpoints of one session: kept while it runs, found when it is to go on, gone when it is over."""

from __future__ import annotations

import asyncio
import time
from types import ModuleType, TracebackType
from typing import Self

from loguru import logger

from antiphon.runner.checkpoint import CheckpointError, SessionCheckpoint
from antiphon.runner.checkpointer import Checkpointer
from antiphon_actors.bot_program import BotFile, is_part_of
from antiphon_actors.checkpoints.store import CheckpointStore
from antiphon_actors.errors import CheckpointStoreError, SessionLostError

LOAD_DEADLINE_SECS = 8.0
"""How long a store that does not answer is asked for a checkpoint before the session counts as lost."""

DISCARD_DEADLINE_SECS = 1.0

_PAUSE_SECS = 0.2


class SessionCheckpoints:
    """One session's checkpoints in a store.

    Each process that runs the session writes under a number of its own. So one that was given up, and
    still lives, overwrites and deletes nothing of its successor's.
    """

    def __init__(self, store: CheckpointStore, session_id: str, bot_version: str) -> None:
        """Makes an accessor; nothing is written or read yet.

        Args:
            store: Where they are.
            session_id: The session.
            bot_version: Which version of the bot runs it.
        """
        self._store = store
        self._session_id = session_id
        self._bot_version = bot_version
        self._number = 0
        self._first: asyncio.Task[None] | None = None

    @property
    def number(self) -> int:
        """How many processes have run the session before this one."""
        return self._number

    def begin(self) -> None:
        """Notes, in the background, that the session has begun; until then it would count as lost."""
        self._first = asyncio.get_running_loop().create_task(self._note_begin())

    async def load(self) -> SessionCheckpoint | None:
        """What the session goes on from; further checkpoints are this process's.

        Returns:
            The checkpoint; None if the bot had not begun anything that would have to go on.

        Raises:
            SessionLostError: There is none, or none that can be used; the message says why.
        """
        limit = time.monotonic() + LOAD_DEADLINE_SECS
        while True:
            try:
                return await self._load()
            except CheckpointStoreError as error:
                if time.monotonic() >= limit:
                    raise SessionLostError(f"its checkpoint cannot be read: {error}") from error
                logger.warning("checkpoint not read", error=str(error))
                await asyncio.sleep(_PAUSE_SECS)

    async def save(self, data: bytes) -> None:
        """Stores a checkpoint.

        Raises:
            CheckpointStoreError: It could not be stored.
        """
        if self._first is not None:
            await asyncio.wait({self._first})
        await self._store.put(self._key(self._number), data)

    async def discard(self) -> None:
        """Deletes the session's checkpoints; if that fails, they go by themselves in time."""
        try:
            async with asyncio.timeout(DISCARD_DEADLINE_SECS):
                if self._first is not None:
                    await asyncio.wait({self._first})
                await self._store.delete(self._key(self._number))
                if await self._store.get(self._session_id) == self._pointer():
                    await self._store.delete(self._session_id)
        except (CheckpointStoreError, TimeoutError) as error:
            logger.warning("checkpoint not deleted", error=str(error) or "no answer in time")

    async def _note_begin(self) -> None:
        blank = SessionCheckpoint(self._session_id, self._bot_version, time.time())
        try:
            await self._claim(blank.encode())
        except CheckpointStoreError as error:
            logger.warning("begin of the session not noted", error=str(error))

    async def _load(self) -> SessionCheckpoint | None:
        pointer = await self._store.get(self._session_id)
        try:
            last = int(pointer) if pointer is not None else 0
        except ValueError:
            raise SessionLostError("its entry in the store is damaged") from None
        self._number = last + 1
        data = await self._store.get(self._key(last))
        if data is None:
            raise SessionLostError("there is no checkpoint of it")
        try:
            checkpoint = SessionCheckpoint.decode(data)
        except CheckpointError as error:
            raise SessionLostError(str(error)) from error
        if checkpoint.session_id != self._session_id:
            raise SessionLostError("its checkpoint is that of another session")
        if checkpoint.bot_version != self._bot_version:
            raise SessionLostError(
                f"its checkpoint is of version {checkpoint.bot_version} of the bot; "
                f"this is version {self._bot_version}"
            )
        await self._claim(data)
        await self._store.delete(self._key(last))
        return checkpoint if checkpoint.has_begun else None

    async def _claim(self, data: bytes) -> None:
        """Makes what this process writes the session's checkpoint."""
        # In this order there is one at each moment.
        await self._store.put(self._key(self._number), data)
        if self._number:
            await self._store.put(self._session_id, self._pointer())

    def _pointer(self) -> bytes:
        return str(self._number).encode()

    def _key(self, number: int) -> str:
        return f"{self._session_id}/{number}"


class KeptSession:
    """A session that can go on in another process; an async context manager around its bot.

    At its end the checkpoint is deleted, unless the session was abandoned.

    Attributes:
        resume: What it goes on from; None if it begins.
        lost: Why an earlier conversation could not be resumed, if the session begins anew for that.
        keeper: Saves it.
    """

    def __init__(
        self,
        store: CheckpointStore,
        session_id: str,
        bot_file: BotFile,
        *,
        resume: bool,
        anew_when_lost: bool = False,
    ) -> None:
        """Makes a session that is opened as a context manager.

        Args:
            store: Where its checkpoints are.
            session_id: The session.
            bot_file: The bot.
            resume: Whether it goes on.
            anew_when_lost: Whether it begins anew if it cannot go on.
        """
        self.resume: SessionCheckpoint | None = None
        self.lost = ""
        self.keeper: Checkpointer
        self._checkpoints = SessionCheckpoints(store, session_id, bot_file.digest)
        self._session_id = session_id
        self._bot_file = bot_file
        self._goes_on = resume
        self._anew_when_lost = anew_when_lost
        self._is_abandoned = False
        self._closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Finds out where the session stands.

        Raises:
            SessionLostError: It was to go on, and cannot.
        """
        if self._goes_on:
            try:
                self.resume = await self._checkpoints.load()
            except SessionLostError as error:
                if not self._anew_when_lost:
                    raise
                logger.error("session cannot be resumed: it begins anew", error=str(error))
                self.lost = str(error)
        if self.resume is None:
            self._checkpoints.begin()

        def is_own(module: ModuleType) -> bool:
            return is_part_of(module, self._bot_file)

        self.keeper = Checkpointer(
            self._session_id,
            self._bot_file.digest,
            self._checkpoints.save,
            resume=self.resume,
            is_own=is_own,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A session that is cancelled is over, too; cancelled once more, it does not wait for this.
        self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    @property
    def number(self) -> int:
        """How many processes have run the session before this one."""
        return self._checkpoints.number

    def abandon(self) -> None:
        """Leaves the checkpoint at the end of the session: it goes on elsewhere."""
        self._is_abandoned = True

    async def hand_over(self) -> None:
        """Saves the session for another process; nothing that happens here later is saved.

        Raises:
            CheckpointError, CheckpointStoreError: It could not be saved; it goes on here.
        """
        await self.keeper.flush()
        self.abandon()
        await self.keeper.aclose()

    async def _close(self) -> None:
        await self.keeper.aclose()
        if not self._is_abandoned:
            await self._checkpoints.discard()
