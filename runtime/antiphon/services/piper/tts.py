"""Text to speech with Piper: its HTTP server, and its voices on one's own machines."""

from antiphon.services.piper._http import PiperTTSService
from antiphon.services.piper._local import LocalPiperTTSService

__all__ = ["LocalPiperTTSService", "PiperTTSService"]
