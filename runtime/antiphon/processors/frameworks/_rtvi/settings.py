"""What a bot offers clients to configure and to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, Field

from antiphon.frames.codec import register_type

RTVIValueType = Literal["bool", "number", "string", "array", "object"]
"""Types of option values, action arguments and action results."""

ActionResult = bool | int | float | str | list[Any] | dict[str, Any]
"""What an action may return."""


class RTVIServiceOption(BaseModel):
    """One setting of a service.

    Attributes:
        name: Its name within the service.
        type: Type of its value.
        handler: ``async handler(processor, service_name, option)``, called with the
            ``RTVIServiceOptionConfig`` that holds the new value. Not told to clients.
    """

    name: str
    type: RTVIValueType
    handler: Callable[..., Any] = Field(exclude=True)


class RTVIService(BaseModel):
    """A part of the bot with settings.

    Attributes:
        name: What clients call it.
        options: Its settings.
    """

    name: str
    options: list[RTVIServiceOption]


class RTVIServiceOptionConfig(BaseModel):
    """The value of one setting.

    Attributes:
        name: The option.
        value: Its value.
    """

    name: str
    value: Any


class RTVIServiceConfig(BaseModel):
    """Values of settings of one service.

    Attributes:
        service: The service.
        options: The values, applied in this order.
    """

    service: str
    options: list[RTVIServiceOptionConfig]


class RTVIConfig(BaseModel):
    """Values of settings of several services, applied in this order.

    Attributes:
        config: One entry for each service.
    """

    config: list[RTVIServiceConfig]


class RTVIUpdateConfig(BaseModel):
    """A client's wish to change settings.

    Attributes:
        config: The new values.
        interrupt: Whether the bot is interrupted first.
    """

    config: list[RTVIServiceConfig]
    interrupt: bool = False


class RTVIActionArgument(BaseModel):
    """An argument of an action, as clients are told of it.

    Attributes:
        name: Its name.
        type: Type of its value.
    """

    name: str
    type: RTVIValueType


class RTVIActionArgumentData(BaseModel):
    """The value of an argument.

    Attributes:
        name: The argument.
        value: Its value.
    """

    name: str
    value: Any


class RTVIAction(BaseModel):
    """A function of the bot that clients may run.

    Attributes:
        service: What the action belongs to.
        action: Its name within the service.
        arguments: What it takes.
        result: Type of what it returns.
        handler: ``async handler(processor, service_name, arguments)`` with the arguments as a
            dictionary; returns the result. Not told to clients.
    """

    service: str
    action: str
    arguments: list[RTVIActionArgument] = Field(default_factory=list)
    result: RTVIValueType
    handler: Callable[..., Any] = Field(exclude=True)


@register_type
class RTVIActionRunArgument(BaseModel):
    """The value of an argument of an action that is to run.

    Attributes:
        name: The argument.
        value: Its value.
    """

    name: str
    value: Any


@register_type
class RTVIActionRun(BaseModel):
    """An action that is to run.

    Attributes:
        service: What the action belongs to.
        action: Its name within the service.
        arguments: What it gets.
    """

    service: str
    action: str
    arguments: list[RTVIActionRunArgument] | None = None
