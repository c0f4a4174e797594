"""Frames as clients over WebSockets see them.

`frames_pb2` is made from `frames.proto`, by protoc with `--python_out` and `--pyi_out`.
"""
