"""Limits of what travels with a payload."""

from __future__ import annotations

__all__ = ["DESCRIPTOR_LIMIT"]

DESCRIPTOR_LIMIT = 4080
"""The longest descriptor in bytes: with its 16-byte frame it fits the 4 KiB that a payload keeps for it."""
