"""Conversations that follow a plan: nodes, each with its task, its functions and its actions."""

from antiphon.flows.exceptions import (
    ActionError,
    FlowError,
    FlowInitializationError,
    FlowTransitionError,
    InvalidFunctionError,
)
from antiphon.flows.manager import FlowManager
from antiphon.flows.types import (
    ActionConfig,
    ConsolidatedFunctionResult,
    ContextStrategy,
    ContextStrategyConfig,
    FlowArgs,
    FlowConfig,
    FlowFunctionHandler,
    FlowResult,
    FlowsDirectFunction,
    FlowsFunctionSchema,
    LegacyFunctionHandler,
    NodeConfig,
    flows_direct_function,
)

__all__ = [
    "ActionConfig",
    "ActionError",
    "ConsolidatedFunctionResult",
    "ContextStrategy",
    "ContextStrategyConfig",
    "FlowArgs",
    "FlowConfig",
    "FlowError",
    "FlowFunctionHandler",
    "FlowInitializationError",
    "FlowManager",
    "FlowResult",
    "FlowTransitionError",
    "FlowsDirectFunction",
    "FlowsFunctionSchema",
    "InvalidFunctionError",
    "LegacyFunctionHandler",
    "NodeConfig",
    "flows_direct_function",
]
