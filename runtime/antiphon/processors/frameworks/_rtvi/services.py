"""The services of a bot and the values of their options."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from antiphon.processors.frameworks._rtvi.refusals import RefusedError
from antiphon.processors.frameworks._rtvi.settings import (
    RTVIConfig,
    RTVIService,
    RTVIServiceConfig,
    RTVIServiceOption,
    RTVIServiceOptionConfig,
)

if TYPE_CHECKING:
    from antiphon.processors.frameworks._rtvi.processor import RTVIProcessor


class Services:
    """What can be configured, and how it is configured now."""

    def __init__(self, initial: RTVIConfig | None) -> None:
        """Begins without services.

        Args:
            initial: The values to begin with; the bot's own object is not changed later.
        """
        self._services: dict[str, RTVIService] = {}
        # Copied down to the options: their values may be anything, and are left alone.
        self._config = RTVIConfig(
            config=[
                RTVIServiceConfig(
                    service=service.service, options=[o.model_copy() for o in service.options]
                )
                for service in (initial.config if initial is not None else [])
            ]
        )

    @property
    def config(self) -> RTVIConfig:
        """The values now."""
        return self._config

    @property
    def services(self) -> list[RTVIService]:
        """The registered services."""
        return list(self._services.values())

    def register(self, service: RTVIService) -> None:
        """Adds a service, or replaces the one of that name."""
        self._services[service.name] = service

    async def apply(self, config: RTVIServiceConfig, processor: RTVIProcessor) -> None:
        """Gives new values to the handlers of their options, one after the other.

        Raises:
            RefusedError: An option does not exist, or its handler failed. The options before it
                are set.
        """
        for value in config.options:
            option = self._option(config.service, value.name)
            try:
                result = option.handler(processor, config.service, value)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:
                raise RefusedError(
                    f"Option {config.service}.{value.name} was not set: {error}"
                ) from error
            self._note(config.service, value)

    def check(self, config: list[RTVIServiceConfig]) -> None:
        """Looks whether all options exist, before any is set.

        Raises:
            RefusedError: One does not.
        """
        for service in config:
            for value in service.options:
                self._option(service.service, value.name)

    def _option(self, service_name: str, name: str) -> RTVIServiceOption:
        service = self._services.get(service_name)
        if service is None:
            raise RefusedError(f"Service {service_name[:100]} not registered")
        for option in service.options:
            if option.name == name:
                return option
        raise RefusedError(f"Service {service_name} has no option {name[:100]}")

    def _note(self, service_name: str, value: RTVIServiceOptionConfig) -> None:
        # Bounded: only values of registered options get here.
        for service in self._config.config:
            if service.service == service_name:
                break
        else:
            service = RTVIServiceConfig(service=service_name, options=[])
            self._config.config.append(service)
        for option in service.options:
            if option.name == value.name:
                option.value = value.value
                return
        service.options.append(value.model_copy())
