"""The entry of the ``antiphon`` command; the commands are in `antiphon_actors.commands`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Runs the command line and exits with its code."""
    # There is nothing to clean up before a command runs: a Ctrl-C during the imports just ends.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from antiphon_actors.commands import execute

    sys.exit(execute())


if __name__ == "__main__":
    main()
