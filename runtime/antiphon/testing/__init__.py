"""What tests of bots use: fakes of services and transports, and time that does not pass.

Everything here is scripted and deterministic, and needs no network, model or device. Time is in
``antiphon.testing.virtual_time``.
"""

from antiphon.testing.caller import Caller, call
from antiphon.testing.fake_fault import FakeFault
from antiphon.testing.fake_llm import FakeDelay, FakeFailure, FakeLLMService, FakeToolCall
from antiphon.testing.fake_stt import FakeSTTService
from antiphon.testing.fake_transport import FakeTransport
from antiphon.testing.fake_tts import FakeTTSService, FakeWordTTSService
from antiphon.testing.fake_vad import FakeVADAnalyzer

__all__ = [
    "Caller",
    "FakeDelay",
    "FakeFailure",
    "FakeFault",
    "FakeLLMService",
    "FakeSTTService",
    "FakeTTSService",
    "FakeToolCall",
    "FakeTransport",
    "FakeVADAnalyzer",
    "FakeWordTTSService",
    "call",
]
