"""The output transport under the module name some of the documentation uses."""

from antiphon.transports.base_output import BaseOutputTransport

__all__ = ["BaseOutputTransport"]
