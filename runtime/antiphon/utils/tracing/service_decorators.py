"""Spans around what services do.

The base classes of services use the functions here, so that every service is traced. A service of a
bot may use the decorators instead, on its ``run_tts``, its handling of transcriptions or of contexts:
the base class then leaves that kind of span to it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from antiphon.utils.tracing.service_attributes import (
    add_llm_span_attributes,
    add_stt_span_attributes,
    add_tts_span_attributes,
    gen_ai_system,
    tool_attributes,
)
from antiphon.utils.tracing.service_span import ServiceSpan

if TYPE_CHECKING:
    from antiphon.services.ai_service import AIService

Kind = Literal["stt", "llm", "tts"]
F = TypeVar("F", bound=Callable[..., Any])

_TRACED = "__antiphon_traced__"


def traces_itself(cls: type, kind: Kind) -> bool:
    """Whether a service class has a method with the decorator of that kind."""
    return any(
        getattr(member, _TRACED, None) == kind
        for base in cls.__mro__
        for member in vars(base).values()
    )


@contextmanager
def service_span(service: AIService, name: str) -> Iterator[ServiceSpan | None]:
    """Notes one operation of a service; None if nothing is traced.

    The span is reported when the block ends, unless the service has been told to keep it open.
    An exception is noted in it; a cancellation, such as an interruption, only ends it.
    """
    if service.report_span is None:
        yield None
        return
    span = ServiceSpan(name, service.get_clock().get_time())
    outer, service.open_span = service.open_span, span
    service.measured_ttfb = None
    try:
        yield span
    except Exception as error:
        span.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        service.open_span = outer
        if service.late_span is not span:
            end_span(service, span)


def end_span(service: AIService, span: ServiceSpan) -> None:
    """Ends a span and reports it."""
    span.end_ns = service.get_clock().get_time()
    span.set_attribute("metrics.ttfb", service.measured_ttfb)
    service.measured_ttfb = None
    if service.report_span is not None:
        service.report_span(span)


def describe_tts(service: Any, span: ServiceSpan, text: str) -> None:
    """Sets the attributes of a text that is about to be spoken."""
    add_tts_span_attributes(
        span,
        type(service).__name__,
        service.model_name,
        service._voice_id,
        text=text,
        settings=service._settings,
        character_count=len(text),
    )


def describe_stt(
    service: Any,
    span: ServiceSpan,
    transcript: str,
    is_final: bool,
    language: str | None,
    user_id: str | None = None,
) -> None:
    """Sets the attributes of a transcript."""
    add_stt_span_attributes(
        span,
        type(service).__name__,
        service.model_name,
        transcript=transcript,
        is_final=is_final,
        language=language or service._settings.get("language"),
        user_id=user_id,
        settings=service._settings,
        vad_enabled=bool(getattr(service, "vad_enabled", False)),
    )


def describe_llm(service: Any, span: ServiceSpan, context: Any) -> None:
    """Sets the attributes of a conversation that is about to be answered.

    ``output`` and the token usage come at the end (`describe_answer`, `AIService`).
    """
    messages = list(getattr(context, "messages", None) or [])
    for_logging = getattr(context, "get_messages_for_logging", None)
    add_llm_span_attributes(
        span,
        type(service).__name__,
        service.model_name,
        messages=str(for_logging()) if for_logging is not None else None,
        system=_system_message(context, messages),
        tool_choice=_given(getattr(context, "tool_choice", None)),
        parameters=service._settings,
        **tool_attributes(getattr(context, "tools", None)),
    )


@overload
def traced_tts(func: F, *, name: str | None = None) -> F: ...


@overload
def traced_tts(func: None = None, *, name: str | None = None) -> Callable[[F], F]: ...


def traced_tts(func: F | None = None, *, name: str | None = None) -> Any:
    """Makes a span of each call of ``run_tts(self, text)``, an async generator or function.

    Args:
        func: The method.
        name: Name of the span; ``tts`` if left out.
    """
    return _decorate(func, "tts", name, describe_tts)


@overload
def traced_stt(func: F, *, name: str | None = None) -> F: ...


@overload
def traced_stt(func: None = None, *, name: str | None = None) -> Callable[[F], F]: ...


def traced_stt(func: F | None = None, *, name: str | None = None) -> Any:
    """Makes a span of each call of ``method(self, transcript, is_final, language=None)``.

    Args:
        func: The method.
        name: Name of the span; ``stt`` if left out.
    """

    def describe(
        service: Any,
        span: ServiceSpan,
        transcript: str,
        is_final: bool,
        language: str | None = None,
    ) -> None:
        describe_stt(service, span, transcript, is_final, language)

    return _decorate(func, "stt", name, describe)


@overload
def traced_llm(func: F, *, name: str | None = None) -> F: ...


@overload
def traced_llm(func: None = None, *, name: str | None = None) -> Callable[[F], F]: ...


def traced_llm(func: F | None = None, *, name: str | None = None) -> Any:
    """Makes a span of each call of ``method(self, context)`` that answers a conversation.

    Args:
        func: The method.
        name: Name of the span; ``llm`` if left out.
    """
    return _decorate(func, "llm", name, describe_llm)


def traced_gemini_live(operation: str) -> Callable[[F], F]:
    """Makes a span of each call of a method of a speech-to-speech service.

    The method adds what it knows to ``self.open_span``
    (``service_attributes.add_gemini_live_span_attributes``).

    Args:
        operation: ``llm_setup``, ``llm_tool_call``, ``llm_tool_result`` or ``llm_response``: the
            name of the span.
    """
    return _operation(operation)


def traced_openai_realtime(operation: str) -> Callable[[F], F]:
    """Makes a span of each call of a method of a speech-to-speech service.

    The method adds what it knows to ``self.open_span``
    (``service_attributes.add_openai_realtime_span_attributes``).

    Args:
        operation: ``llm_setup``, ``llm_request`` or ``llm_response``: the name of the span.
    """
    return _operation(operation)


def _operation(operation: str) -> Callable[[F], F]:
    def describe(service: Any, span: ServiceSpan, *args: Any, **kwargs: Any) -> None:
        span.set_attributes(
            {
                "gen_ai.system": gen_ai_system(type(service).__name__),
                "gen_ai.request.model": service.model_name,
                "gen_ai.operation.name": operation,
            }
        )

    decorator: Callable[[F], F] = _decorate(None, "llm", operation, describe)
    return decorator


def _decorate(func: F | None, kind: Kind, name: str | None, describe: Callable[..., None]) -> Any:
    def decorator(method: F) -> Any:
        wrapper: Any
        if inspect.isasyncgenfunction(method):

            @functools.wraps(method)
            async def traced_generator(
                self: Any, *args: Any, **kwargs: Any
            ) -> AsyncGenerator[Any, None]:
                with service_span(self, name or kind) as span:
                    if span is not None:
                        describe(self, span, *args, **kwargs)
                    frames = method(self, *args, **kwargs)
                    try:
                        async for frame in frames:
                            yield frame
                    finally:
                        await frames.aclose()

            wrapper = traced_generator
        else:

            @functools.wraps(method)
            async def traced(self: Any, *args: Any, **kwargs: Any) -> Any:
                with service_span(self, name or kind) as span:
                    if span is not None:
                        describe(self, span, *args, **kwargs)
                    return await method(self, *args, **kwargs)

            wrapper = traced
        setattr(wrapper, _TRACED, kind)
        return wrapper

    return decorator if func is None else decorator(func)


def _system_message(context: Any, messages: list[Any]) -> str | None:
    system = getattr(context, "system", None)
    if isinstance(system, str) and system:
        return system
    if messages and isinstance(messages[0], dict) and messages[0].get("role") == "system":
        content = messages[0].get("content")
        return content if isinstance(content, str) else str(content)
    return None


def _given(value: Any) -> str | None:
    return value if isinstance(value, str) else None
