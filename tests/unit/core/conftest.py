"""Nothing is left behind by any of these tests."""

from __future__ import annotations

from tests.unit.leaving import nothing_left

__all__ = ["nothing_left"]
