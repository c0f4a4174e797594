"""Another name of ``antiphon.processors.frameworks.rtvi``, used in the documentation."""

from antiphon.processors.frameworks.rtvi import *  # noqa: F403 - all of it
