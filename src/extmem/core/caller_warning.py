"""RuleWarning at the line of the program that made a call, for devices opened with check="warn"."""

from __future__ import annotations

import sys
import warnings

__all__ = ["RuleWarning", "warn_caller"]


class RuleWarning(UserWarning):
    """A call broke the specification and went on because the device was opened with check="warn"."""


def warn_caller(message: str) -> None:
    """Warn with RuleWarning, at the line outside this package that made the call, however deep in it this is.

    Python shows a warning once for each line: one that points into the library would hide all others.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("extmem."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuleWarning, stacklevel=level)
