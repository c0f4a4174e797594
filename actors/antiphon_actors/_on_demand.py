"""Waits until somebody connects to a port, and then becomes the program that serves it.

A script (`python -I -S _on_demand.py PORT COMMAND...`) that imports nothing but the standard library: 7 MB
in place of a program that is rarely needed. Its process id stays. Who connected is cut off, and has to
try again until the program listens.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress


def await_connection(port: int) -> None:
    """Returns when somebody has connected to a port of the loopback address, or it cannot be had."""
    with socket.socket() as listener, suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        listener.accept()[0].close()


if __name__ == "__main__":
    await_connection(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - what the raylet would have run itself
