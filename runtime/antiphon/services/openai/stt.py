"""Speech to text with OpenAI."""

from __future__ import annotations

from typing import Any

from antiphon.services.whisper.base_stt import BaseWhisperSTTService
from antiphon.transcriptions.language import Language


class OpenAISTTService(BaseWhisperSTTService):
    """Recognises speech with OpenAI's transcription models, or a service with the same interface.

    Needs voice activity detection in the pipeline: each stretch of speech is sent as a whole.
    """

    def __init__(
        self,
        *,
        model: str = "gpt-4o-transcribe",
        api_key: str | None = None,
        base_url: str | None = None,
        language: Language | None = Language.EN,
        prompt: str | None = None,
        temperature: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes a service; the client is made when the pipeline starts.

        Args:
            model: Model to recognise with.
            api_key: Key of the account; from ``OPENAI_API_KEY`` if left out.
            base_url: Address of a compatible service.
            language: Language that is spoken; None lets the model find out.
            prompt: Words and manner to expect.
            temperature: Randomness, 0.0 to 1.0.
            **kwargs: Passed on to ``BaseWhisperSTTService``.

        Raises:
            ConfigError: The ``openai`` package is not installed.
        """
        super().__init__(
            model=model,
            api_key=api_key,
            base_url=base_url,
            language=language,
            prompt=prompt,
            temperature=temperature,
            **kwargs,
        )
