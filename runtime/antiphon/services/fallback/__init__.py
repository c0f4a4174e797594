"""Chains of services that stand in for one another."""

from antiphon.services.fallback.llm import FallbackLLMService
from antiphon.services.fallback.member import MemberStatus
from antiphon.services.fallback.stt import FallbackSTTService
from antiphon.services.fallback.tts import FallbackTTSService

__all__ = ["FallbackLLMService", "FallbackSTTService", "FallbackTTSService", "MemberStatus"]
