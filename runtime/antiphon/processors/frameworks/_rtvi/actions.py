"""The functions of a bot that clients may run."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from pydantic import ValidationError

from antiphon.processors.frameworks._rtvi.messages import RTVIActionResponseData
from antiphon.processors.frameworks._rtvi.refusals import RefusedError
from antiphon.processors.frameworks._rtvi.settings import RTVIAction, RTVIActionRun

if TYPE_CHECKING:
    from antiphon.processors.frameworks._rtvi.processor import RTVIProcessor

_SHOWN_CHARACTERS = 200


class Actions:
    """The registered actions."""

    def __init__(self) -> None:
        """Begins without actions."""
        self._actions: dict[str, RTVIAction] = {}

    @property
    def actions(self) -> list[RTVIAction]:
        """The actions, in order of registration."""
        return list(self._actions.values())

    def register(self, action: RTVIAction) -> None:
        """Adds an action, or replaces the one of that name."""
        self._actions[f"{action.service}:{action.action}"] = action

    async def run(self, run: RTVIActionRun, processor: RTVIProcessor) -> RTVIActionResponseData:
        """Runs an action.

        Args:
            run: The action and its arguments.
            processor: What the handler gets as such.

        Returns:
            The result.

        Raises:
            RefusedError: There is no such action, it failed, or a client cannot be sent its result.
        """
        name = f"{run.service}:{run.action}"
        action = self._actions.get(name)
        if action is None:
            raise RefusedError(f"Action {name[:_SHOWN_CHARACTERS]} not registered")
        arguments = {argument.name: argument.value for argument in run.arguments or []}
        try:
            result = action.handler(processor, action.service, arguments)
            if inspect.isawaitable(result):
                result = await result
        except Exception as error:
            raise RefusedError(f"Action {name} failed: {error}") from error
        try:
            return RTVIActionResponseData(result=result)
        except ValidationError as error:
            raise RefusedError(f"Action {name} has no result of a documented type") from error
