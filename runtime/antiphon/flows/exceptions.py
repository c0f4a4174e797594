"""What can go wrong in a flow."""

from __future__ import annotations

from antiphon.errors import AntiphonError


class FlowError(AntiphonError):
    """Base of every error of a flow, and what a node that cannot be entered raises."""


class FlowInitializationError(FlowError):
    """The flow cannot begin as it is configured."""


class FlowTransitionError(FlowError):
    """There is no way to the node that is wanted."""


class InvalidFunctionError(FlowError):
    """A function of a node cannot be offered to the model, or did not return what it must."""


class ActionError(FlowError):
    """An action is not configured as it must be, or failed."""
