"""What tests of bots use: fakes of services and transports, and time that does not pass.

Everything here is scripted, and needs no model or device; all but ``dial()`` is deterministic and needs
no network. Time is in ``antiphon.testing.virtual_time``.
"""

from antiphon.testing.caller import Caller, call
from antiphon.testing.fake_fault import FakeFault
from antiphon.testing.fake_llm import FakeDelay, FakeFailure, FakeLLMService, FakeToolCall
from antiphon.testing.fake_stt import FakeSTTService
from antiphon.testing.fake_transport import FakeTransport
from antiphon.testing.fake_tts import FakeTTSService, FakeWordTTSService
from antiphon.testing.fake_vad import FakeVADAnalyzer
from antiphon.testing.websocket_caller import WebSocketCaller, dial

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
    "WebSocketCaller",
    "call",
    "dial",
]
