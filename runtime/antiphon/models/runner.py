"""Runs a model in a thread of its own, for whoever is in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from loguru import logger

from antiphon.errors import AntiphonError, DeadlineExceededError, OverloadedError, ServiceError
from antiphon.models.batching import Batcher, BatchTimes, Limits, Request
from antiphon.models.measures import ModelStatistics
from antiphon.models.model import Model, ModelSpec, SessionState

Deliver = Callable[[Sequence[Request]], None]


class ModelRunner:
    """A loaded model, its queue and its thread.

    A `ModelBackend`. All methods belong to the event loop in which `start` was called. There is one thread: a second one
    would only contend for the interpreter where the model is Python between two calls of native code, and
    what is native can use as many threads as it likes.

    Args:
        spec: The model.
        deliver: Takes the requests that are over, with their `result`: all of a batch at once. Called on
            the loop; it must not raise.
        export: Whether the state of a session is exported after each of its requests
            (`Request.exported`).
    """

    def __init__(self, spec: ModelSpec, deliver: Deliver, *, export: bool = False) -> None:
        self.name = spec.name
        self.model: Model = spec.build()
        self.counts = ModelStatistics()
        self._deliver = deliver
        self._export = export
        self._batcher = Batcher(Limits.of(self.model))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._loading: asyncio.Future[None] | None = None
        # When the queue is looked at next, and whether that is in the next turn of the loop.
        self._look: asyncio.Handle | None = None
        self._looks_soon = False
        self._closed = False

    async def start(self) -> None:
        """Loads the model and waits until it is warm; several may wait.

        Cancelling one of them does not stop the loading.

        Raises:
            AntiphonError: It cannot be loaded; the runner is of no use then.
        """
        if self._loading is None:
            self._loop = asyncio.get_running_loop()
            self._thread = ThreadPoolExecutor(1, f"model {self.name}")
            self._loading = self._loop.run_in_executor(self._thread, self._load)
            self._loading.add_done_callback(self._loaded)
        await asyncio.shield(self._loading)

    def submit(self, request: Request) -> None:
        """Takes a request; `deliver` gets it back, perhaps before this returns.

        The model must have been started.
        """
        now = time.monotonic()
        if self._closed:
            self._fail([request], ServiceError(f"{self.name} is closed", provider=self.name))
            return
        request.group_key = self.model.group(request)
        retry_after = self._batcher.add(request, now)
        if retry_after is not None:
            self.counts.refused += 1
            self._fail([request], self._overloaded(retry_after))
        elif not self._looks_soon and not self._batcher.running:
            # In the next turn of the loop: what arrives together is one batch.
            assert self._loop is not None
            self._look_no_more()
            self._look = self._loop.call_soon(self._time_passed)
            self._looks_soon = True

    def cancel(self, request: Request) -> None:
        """Takes a request back; `deliver` does not get it any more, unless it is being worked on."""
        if not request.cancelled:
            self.counts.cancelled += 1
            self._batcher.cancel(request)

    def open(self, session: SessionState) -> None:
        """Counts a session in; its state is made with its first request."""
        self.counts.sessions += 1

    def forget(self, session: SessionState) -> None:
        """Counts a session out; its state goes with whoever holds it."""
        self.counts.sessions -= 1

    @property
    def expected_wait_secs(self) -> float:
        """How long a request that came now would wait for its answer, as far as is known."""
        return self._batcher.expected_wait_secs(time.monotonic())

    @property
    def limits(self) -> Limits:
        """The bounds of its queue and batches."""
        return self._batcher.limits

    @property
    def times(self) -> BatchTimes:
        """How long its batches take."""
        return self._batcher.times

    @property
    def longest_wait_secs(self) -> float:
        """How long the first of those that wait has been waiting; 0 if nobody is."""
        return self._batcher.longest_wait_secs(time.monotonic())

    @property
    def batch_secs(self) -> float:
        """How long the present batch has been worked on; 0 if there is none."""
        return self._batcher.batch_secs(time.monotonic())

    @property
    def unanswered(self) -> int:
        """Requests that wait or are worked on."""
        return self._batcher.queued + self._batcher.running

    def statistics(self) -> dict[str, Any]:
        """Counters, for tables and metrics."""
        return {
            **self.counts.to_plain(self.model.statistics()),
            "queued": self._batcher.queued,
            "expected_wait_ms": 1e3 * self.expected_wait_secs,
        }

    def close(self) -> None:
        """Fails what waits and has the thread free the model behind its batch, unheard. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._look_no_more()
        waiting = self._batcher.clear()
        if waiting:
            self._fail(waiting, ServiceError(f"{self.name} was closed", provider=self.name))
        if self._thread is not None:
            if self._loading is not None and not _failed(self._loading):
                self._thread.submit(self._free)
            self._thread.shutdown(wait=False)

    async def aclose(self) -> None:
        """As `close`, and waits until the thread has freed the model; cancelling leaves that to it."""
        self.close()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown)

    # --- on the loop ----------------------------------------------------------------------------

    def _go_on(self, now: float) -> None:
        """Begins with the next batch, if there is one; else sees to it that time passes."""
        assert self._loop is not None
        self._look_no_more()
        batch, late = self._batcher.take(now)
        if late:
            self.counts.expired += len(late)
            error = DeadlineExceededError(f"{self.name}: no answer in time", provider=self.name)
            self._fail(late, error)
        if batch:
            for request in batch:
                self.counts.queue.add(now - request.arrived)
            running: asyncio.Future[tuple[float, list[Any]]]
            if self.model.quick:
                running = self._loop.create_future()
                running.set_result(self._run(batch))
            else:
                running = self._loop.run_in_executor(self._thread, self._run, batch)
            running.add_done_callback(self._finished)
            return
        due = self._batcher.wake_at(now)
        if due is not None:
            self._look = self._loop.call_later(max(due - now, 0.0), self._time_passed)

    def _time_passed(self) -> None:
        if not self._closed:
            self._go_on(time.monotonic())

    def _look_no_more(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self._looks_soon = False

    def _finished(self, running: asyncio.Future[tuple[float, list[Any]]]) -> None:
        """The thread has done its batch."""
        secs, results = running.result()
        now = time.monotonic()
        batch = self._batcher.finished(now, secs)
        counts = self.counts
        counts.compute.add(secs)
        counts.batches[len(batch)] = counts.batches.get(len(batch), 0) + 1
        for request, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                counts.failed += 1
                request.result = self._service_error(result)
            else:
                counts.answered += 1
                request.result = result
        if not self._closed:
            self._go_on(now)
        self._deliver(batch)

    def _fail(self, requests: Sequence[Request], error: Exception) -> None:
        for request in requests:
            request.result = error
        self._deliver(requests)

    def _overloaded(self, retry_after: float) -> OverloadedError:
        return OverloadedError(
            f"{self.name} has too much to do: {self._batcher.queued} requests wait",
            retry_after=retry_after,
            provider=self.name,
        )

    def _service_error(self, error: Exception) -> Exception:
        if isinstance(error, AntiphonError):
            return error
        return ServiceError(
            f"{self.name} failed: {type(error).__name__}: {error}", provider=self.name
        )

    def _loaded(self, loading: asyncio.Future[None]) -> None:
        if _failed(loading):  # asked in any case: perhaps nobody waits any more
            self.close()

    # --- in the thread --------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            self.model.load()
        except AntiphonError:
            raise
        except Exception as error:
            raise ServiceError(
                f"{self.name} cannot be loaded: {type(error).__name__}: {error}", provider=self.name
            ) from error

    def _run(self, batch: list[Request]) -> tuple[float, list[Any]]:
        """Works on a batch; returns how long that took, and the results."""
        started = time.perf_counter()
        failed: dict[Request, Exception] = {}
        for request in batch:
            session = request.session
            if session is not None and session.state is None and session.exported is not None:
                try:
                    session.state = self.model.import_state(session.exported)
                except Exception as error:  # noqa: BLE001 - that session's alone
                    failed[request] = error
        todo = [request for request in batch if request not in failed] if failed else batch
        results = self._results(todo) if todo else []
        if failed:
            found = iter(results)
            results = [failed[each] if each in failed else next(found) for each in batch]
        return time.perf_counter() - started, results

    def _results(self, batch: list[Request]) -> list[Any]:
        try:
            results = list(self.model.run_batch(batch))
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for a batch of {len(batch)}")
            if self._export:
                for request in batch:
                    if request.session is not None:
                        request.exported = self.model.export_state(request.session.state)
        except Exception as error:  # noqa: BLE001 - whatever the model raises, its users get
            logger.opt(exception=error).error("model failed", model=self.name, size=len(batch))
            return [error] * len(batch)
        return results

    def _free(self) -> None:
        try:
            self.model.close()
        except Exception as error:  # noqa: BLE001 - nobody is left to tell
            logger.opt(exception=error).error("model not closed", model=self.name)


def _failed(loading: asyncio.Future[None]) -> bool:
    return loading.done() and (loading.cancelled() or loading.exception() is not None)
