"""`RuleWarning`, reported at the line of the program that made a call, for devices opened with check="warn"."""

from __future__ import annotations

import sys
import warnings

__all__ = ["RuleWarning", "warn_caller"]


class RuleWarning(UserWarning):
    """A call broke the specification, and was made because the device was opened with check="warn"."""


def warn_caller(message: str) -> None:
    """Issue a RuleWarning for the line outside this package that made the call.

    Python shows a warning once for each line, so one for a line of the library would suppress all later ones.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("extmem."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuleWarning, stacklevel=level)
