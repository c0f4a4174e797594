"""Prepares a Ray worker process; to import it is enough.

Workers import it before they take work (`cluster_environment.PRELOADED_MODULES`), in their main thread.
"""

from antiphon_actors import termination

termination.install()
