"""Makes ``pipecat`` and ``pipecat_flows`` names of Antiphon: import this before them.

With ``python -m antiphon.compat.pipecat script.py`` a program needs no change at all.

Raises:
    ConfigError: Pipecat itself is installed, and ``ANTIPHON_SHADOW_PIPECAT`` is not 1.
"""

from antiphon.compat.aliases import install, uninstall

__all__ = ["install", "uninstall"]

install()
