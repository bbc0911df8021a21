"""The warning that a device opened with check="warn" gives instead of raising RuleViolation."""

__all__ = ["RuleWarning"]


class RuleWarning(UserWarning):
    """A call broke the specification and went on because the device was opened with check="warn"."""
