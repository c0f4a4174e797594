"""Antiphon: real-time voice and multimodal bots, in one process or spread over a Ray cluster."""

import os
from importlib.metadata import PackageNotFoundError, version

# onnxruntime from 1.29 on keeps a telemetry database and a thread unless told not to before it is
# imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

try:
    __version__ = version("antiphon")
except PackageNotFoundError:
    # A source tree that was never installed.
    __version__ = "0.0.0"
