"""The same chain as calls of Ray actors, nested or compiled into a graph."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

from benchmarks.harness.processes import calm_down

AUDIO = bytes(700)
CALM_DEADLINE_SECS = 5.0
CALL_DEADLINE_SECS = 10.0
# A compiled graph takes at most this many at once.
GRAPH_WINDOW = 10
NESTED_WINDOW = 32


class NestedStage:
    """An actor that calls the next one."""

    def __init__(self, behind: Any) -> None:
        self._behind = behind

    async def take(self, frame: bytes) -> bytes:
        if self._behind is None:
            return frame
        answer: bytes = await self._behind.take.remote(frame)
        return answer


class GraphStage:
    """An actor of a compiled graph; those cannot be asynchronous."""

    def take(self, frame: bytes) -> bytes:
        return frame


class NestedCalls:
    """A frame is an actor call that makes an actor call, and so on."""

    name = "nested Ray calls"

    def __init__(self, processes: int) -> None:
        import ray

        self._stages: list[Any] = []
        behind = None
        for _ in range(processes):
            behind = ray.remote(num_cpus=0)(NestedStage).remote(behind)
            self._stages.append(behind)
        self._first: Any = behind

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Measures."""
        result: dict[str, Any] = await getattr(self, command)(**arguments)
        return result

    async def rest(self) -> None:
        """Idle actors cost nothing."""

    async def latency(self, count: int, **_: Any) -> dict[str, Any]:
        gc.collect()
        samples = []
        for _i in range(count):
            sent = time.monotonic_ns()
            async with asyncio.timeout(CALL_DEADLINE_SECS):
                await self._first.take.remote(AUDIO)
            samples.append(time.monotonic_ns() - sent)
        return {"ns": samples}

    async def saturate(self, count: int, **_: Any) -> dict[str, Any]:
        started = time.monotonic_ns()
        left = count

        async def send() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await self._first.take.remote(AUDIO)

        async with asyncio.timeout(4 * CALL_DEADLINE_SECS):
            await asyncio.gather(*(send() for _ in range(NESTED_WINDOW)))
        return {"per_s": count / (time.monotonic_ns() - started) * 1e9}

    def close(self) -> None:
        """Ends its actors."""
        import ray

        for stage in self._stages:
            ray.kill(stage)


class CompiledGraph:
    """A frame runs through a compiled graph.

    The actors of a compiled graph poll without pause, so it is compiled for each turn and torn
    down after it: otherwise everything else would be measured beside eight busy loops.
    """

    name = "Ray compiled graph"

    def __init__(self, processes: int) -> None:
        import ray

        self._stages: list[Any] = [
            ray.remote(num_cpus=0)(GraphStage).remote() for _ in range(processes)
        ]
        self._graph: Any = None

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Compiles, if this is the first command of a turn, and measures."""
        if self._graph is None:
            from ray.dag import InputNode

            with InputNode() as begin:
                node: Any = begin
                for stage in self._stages:
                    node = stage.take.bind(node)
            self._graph = node.experimental_compile()
            self._run(self._graph, 20)
        result: dict[str, Any] = getattr(self, command)(self._graph, **arguments)
        return result

    async def rest(self) -> None:
        """Tears the graph down, so that nobody polls in the turns of others."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.teardown()
            await calm_down(CALM_DEADLINE_SECS)

    def _run(self, graph: Any, count: int) -> list[int]:
        import ray

        samples = []
        for _ in range(count):
            sent = time.monotonic_ns()
            ray.get(graph.execute(AUDIO), timeout=CALL_DEADLINE_SECS)
            samples.append(time.monotonic_ns() - sent)
        return samples

    def latency(self, graph: Any, count: int, **_: Any) -> dict[str, Any]:
        gc.collect()
        return {"ns": self._run(graph, count)}

    def saturate(self, graph: Any, count: int, **_: Any) -> dict[str, Any]:
        import ray

        started = time.monotonic_ns()
        under_way: list[Any] = []
        for _i in range(count):
            if len(under_way) == GRAPH_WINDOW:
                ray.get(under_way.pop(0), timeout=CALL_DEADLINE_SECS)
            under_way.append(graph.execute(AUDIO))
        for reference in under_way:
            ray.get(reference, timeout=CALL_DEADLINE_SECS)
        return {"per_s": count / (time.monotonic_ns() - started) * 1e9}

    def close(self) -> None:
        """Ends its actors."""
        import ray

        if self._graph is not None:
            self._graph.teardown()
        for stage in self._stages:
            ray.kill(stage)
