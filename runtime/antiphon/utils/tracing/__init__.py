"""OpenTelemetry traces of conversations: conversation > turn > stt, llm, tts.

Importing this package loads nothing of OpenTelemetry.
"""
