"""Each of these tests is also a leak test."""

from __future__ import annotations

from tests.unit.leaving import nothing_left

__all__ = ["nothing_left"]
