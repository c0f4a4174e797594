"""Streaming chat completions, as OpenAI and compatible services offer them."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from loguru import logger
from pydantic import BaseModel, Field

from antiphon.errors import ConfigError, ServiceError
from antiphon.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    LLMTextFrame,
    LLMUpdateSettingsFrame,
    StartFrame,
)
from antiphon.metrics.metrics import LLMTokenUsage
from antiphon.processors.aggregators.openai_llm_context import OpenAILLMContext, is_given
from antiphon.processors.frame_processor import FrameDirection
from antiphon.services.llm_service import LLMService
from antiphon.services.openai._tool_calls import ToolCallCollector

_CLOSE_DEADLINE_SECS = 2.0
"""How long closing the connections may take when the pipeline is over."""


class BaseOpenAILLMService(LLMService):
    """Answers conversations through a chat completions interface.

    Takes ``OpenAILLMContextFrame``, ``LLMMessagesFrame`` and ``VisionImageRawFrame`` and pushes the
    answer as ``LLMTextFrame``s between ``LLMFullResponseStartFrame`` and
    ``LLMFullResponseEndFrame``. Function calls of the model are run. An interruption closes the
    stream.
    """

    class InputParams(BaseModel):
        """Settings of the generation; what is None is left to the service.

        Attributes:
            frequency_penalty: Discourages repeating tokens, -2.0 to 2.0.
            presence_penalty: Discourages staying on a topic, -2.0 to 2.0.
            seed: For repeatable answers, as far as the service supports it.
            temperature: Randomness, 0.0 to 2.0.
            top_k: Not part of OpenAI's interface; for services that take it.
            top_p: Share of probability tokens are drawn from, 0.0 to 1.0.
            max_tokens: Limit of generated tokens; OpenAI's older name.
            max_completion_tokens: Limit of generated tokens.
            extra: Further arguments of the request, by name.
        """

        frequency_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
        presence_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
        seed: int | None = Field(default=None, ge=0)
        temperature: float | None = Field(default=None, ge=0.0, le=2.0)
        top_k: int | None = Field(default=None, ge=0)
        top_p: float | None = Field(default=None, ge=0.0, le=1.0)
        max_tokens: int | None = Field(default=None, ge=1)
        max_completion_tokens: int | None = Field(default=None, ge=1)
        extra: dict[str, Any] | None = Field(default_factory=dict)

    def __init__(
        self,
        *,
        model: str,
        api_key: str | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        default_headers: Mapping[str, str] | None = None,
        params: InputParams | None = None,
        retry_timeout_secs: float = 5.0,
        retry_on_timeout: bool = False,
        **kwargs: Any,
    ) -> None:
        """Makes the service; the SDK is imported and the client made when it starts.

        Args:
            model: Name of the model.
            api_key: Key of the account; from ``OPENAI_API_KEY`` when left out.
            base_url: Address of a compatible service.
            organization: Organization the request counts for.
            project: Project the request counts for.
            default_headers: Sent with every request.
            params: Settings of the generation.
            retry_timeout_secs: With ``retry_on_timeout``: seconds the first attempt may take until
                the answer begins.
            retry_on_timeout: Ask once more, without that limit, if the first attempt takes too
                long.
            **kwargs: Passed on to ``LLMService``.

        Raises:
            ConfigError: The ``openai`` package is not installed.
        """
        if importlib.util.find_spec("openai") is None:
            raise ConfigError('OpenAI services need the openai package: pip install "antiphon"')
        super().__init__(**kwargs)
        params = params or self.InputParams()
        self._settings = params.model_dump(exclude={"extra"})
        self._settings["extra"] = dict(params.extra or {})
        self._retry_timeout_secs = retry_timeout_secs
        self._retry_on_timeout = retry_on_timeout
        self._client_arguments: dict[str, Any] = {
            "api_key": api_key,
            "base_url": base_url,
            "organization": organization,
            "project": project,
            "default_headers": default_headers,
        }
        self._made_client: Any = None
        self.set_model_name(model)

    def can_generate_metrics(self) -> bool:
        """Times and token usage are reported."""
        return True

    def create_client(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        default_headers: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Makes the SDK's client; compatible services override this.

        Args:
            api_key: Key of the account.
            base_url: Address of the service.
            organization: Organization the request counts for.
            project: Project the request counts for.
            default_headers: Sent with every request.
            **kwargs: Further arguments of an override.

        Raises:
            ConfigError: No key was given and none is in the environment.
        """
        import openai

        # The pauses of a conversation are longer than the SDK keeps idle connections; a new TLS
        # handshake would delay the bot's answer.
        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(
            max_keepalive_connections=100, max_connections=1000, keepalive_expiry=None
        )
        try:
            return openai.AsyncOpenAI(
                api_key=api_key,
                base_url=base_url,
                organization=organization,
                project=project,
                default_headers=default_headers,
                http_client=openai.DefaultAsyncHttpxClient(limits=limits),
            )
        except openai.OpenAIError as error:
            raise ConfigError(f"{self} cannot be used: {error}") from error

    @property
    def _client(self) -> Any:
        """The SDK's client, made at its first use."""
        if self._made_client is None:
            self._made_client = self.create_client(**self._client_arguments)
        return self._made_client

    @_client.setter
    def _client(self, client: Any) -> None:
        self._made_client = client

    async def start(self, frame: StartFrame) -> None:
        """Imports the SDK and makes the client."""
        await super().start(frame)
        # The import takes about a second; beside the loop, other sessions do not feel it.
        await asyncio.to_thread(importlib.import_module, "openai.resources.chat")
        _ = self._client

    async def stop(self, frame: EndFrame) -> None:
        """Closes the connections."""
        await super().stop(frame)
        await self._close_client()

    async def cancel(self, frame: CancelFrame) -> None:
        """Closes the connections."""
        await super().cancel(frame)
        await self._close_client()

    async def cleanup(self) -> None:
        """Closes the connections."""
        await self._close_client()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answers conversations; other frames pass."""
        await super().process_frame(frame, direction)

        if isinstance(frame, LLMUpdateSettingsFrame):
            await self._update_settings(frame.settings)
            return
        await self._answer_or_pass(frame, direction, self._answer_in_time)

    async def run_inference(self, context: OpenAILLMContext) -> str | None:
        """Answers a conversation beside the pipeline: no frames, no function calls, no metrics.

        Args:
            context: The conversation; it is not changed.

        Raises:
            ServiceError: The service failed.
        """
        import openai

        try:
            stream = await self._stream_chat_completions(context)
            try:
                deltas = [chunk.choices[0].delta async for chunk in stream if chunk.choices]
            finally:
                await _close(stream)
        except openai.OpenAIError as error:
            raise _service_error(error) from error
        return "".join(_text_of(delta) for delta in deltas if delta is not None) or None

    async def get_chat_completions(self, context: OpenAILLMContext, messages: list[Any]) -> Any:
        """Asks for a streamed completion; compatible services override this.

        Args:
            context: The conversation, for its tools.
            messages: The messages to send.

        Returns:
            The SDK's asynchronous stream of chunks.
        """
        request = self.build_chat_completion_params(context, messages)
        if self._retry_on_timeout:
            import openai

            try:
                async with asyncio.timeout(self._retry_timeout_secs):
                    return await self._client.chat.completions.create(**request)
            except (TimeoutError, openai.APITimeoutError):
                logger.info("completion is slow to begin: asking again", processor=self.name)
        return await self._client.chat.completions.create(**request)

    def build_chat_completion_params(
        self, context: OpenAILLMContext, messages: list[Any]
    ) -> dict[str, Any]:
        """The arguments of the request; what was not given is left out."""
        settings = dict(self._settings)
        extra = settings.pop("extra") or {}
        settings.pop("top_k")  # unknown to OpenAI; a service that takes it gets it by `extra`
        request = {
            "model": self.model_name,
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": messages,
            "tools": context.tools_for(self.get_llm_adapter()),
            "tool_choice": context.tool_choice,
            **settings,
            **extra,
        }
        return {
            name: value for name, value in request.items() if value is not None and is_given(value)
        }

    async def _stream_chat_completions(self, context: OpenAILLMContext) -> Any:
        return await self.get_chat_completions(context, context.get_messages())

    async def _answer_in_time(self, context: OpenAILLMContext) -> None:
        import openai

        try:
            await self._process_context(context)
        except openai.OpenAIError as error:
            if not _is_timeout(error):
                raise _service_error(error) from error
            await self._timed_out()
        except Exception as error:
            # While a stream is read, the HTTP client's own exceptions come through.
            if not _is_timeout(error):
                raise
            await self._timed_out()

    async def _timed_out(self) -> None:
        logger.warning("completion timed out", processor=self.name, model=self.model_name)
        await self._call_event_handler("on_completion_timeout")
        if self._calls.go_to is not None:
            # The chain that it is part of has to know: another service may answer.
            await self.push_error(ErrorFrame("chat completion timed out"))

    async def _process_context(self, context: OpenAILLMContext) -> None:
        calls = ToolCallCollector()
        usage: LLMTokenUsage | None = None

        await self.start_ttfb_metrics()
        stream = await self._stream_chat_completions(context)
        try:
            async for chunk in stream:
                if chunk.usage is not None:
                    # Some services send what was used so far with every chunk: the last counts.
                    usage = _token_usage(chunk.usage)
                if not chunk.choices:
                    continue
                await self.stop_ttfb_metrics()
                delta = chunk.choices[0].delta
                if delta is None:
                    continue
                if delta.tool_calls:
                    calls.add(delta.tool_calls)
                if text := _text_of(delta):
                    await self.push_frame(LLMTextFrame(text=text))
        finally:
            await _close(stream)
        if usage is not None:
            await self.start_llm_usage_metrics(usage)
        await self.run_function_calls(calls.finish(context))

    async def _close_client(self) -> None:
        client, self._made_client = self._made_client, None
        close = getattr(client, "close", None)
        if close is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_DEADLINE_SECS):
                await close()
        except TimeoutError:
            logger.warning("connections did not close in time", processor=self.name)


def _text_of(delta: Any) -> str:
    """The text of a chunk; of spoken answers, their transcript."""
    if delta.content:
        return str(delta.content)
    audio = getattr(delta, "audio", None)
    transcript = audio.get("transcript") if isinstance(audio, dict) else None
    return str(transcript or "")


def _token_usage(usage: Any) -> LLMTokenUsage:
    prompt = getattr(usage, "prompt_tokens_details", None)
    completion = getattr(usage, "completion_tokens_details", None)
    return LLMTokenUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        cache_read_input_tokens=getattr(prompt, "cached_tokens", None),
        reasoning_tokens=getattr(completion, "reasoning_tokens", None),
    )


async def _close(stream: Any) -> None:
    """Closes a stream, so that the service stops generating what nobody will hear."""
    close = getattr(stream, "close", None) or getattr(stream, "aclose", None)
    if close is not None:
        await close()


def _is_timeout(error: BaseException) -> bool:
    """Whether an exception of the SDK or of the HTTP client under it says "too slow"."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return isinstance(error, TimeoutError) or bool(names & {"APITimeoutError", "TimeoutException"})


def _service_error(error: Any) -> ServiceError:
    """The SDK's exception as one of ours."""
    status = getattr(error, "status_code", None)
    response = getattr(error, "response", None)
    after = response.headers.get("retry-after") if response is not None else None
    return ServiceError(
        f"chat completion failed: {error}",
        # Without a status the connection failed.
        retryable=status is None or status in (408, 409, 429) or status >= 500,
        retry_after=float(after) if after and after.replace(".", "", 1).isdigit() else None,
        provider="openai",
        status=status,
    )
