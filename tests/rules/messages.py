"""The messages of all rules, as one text."""

from __future__ import annotations

from pathlib import Path

from tests.rules.cases import CASES

__all__ = ["EXPECTED", "text"]

EXPECTED = Path(__file__).parent / "expected_messages.txt"


def text() -> str:
    """Return the message of each case about its own rule."""
    parts = []
    for vuid in sorted(CASES):
        for v in CASES[vuid].wrong():
            if v.vuid == vuid:
                parts.append(f"{vuid}\n  rule: {v.rule}\n  at:   {v.where}\n  is:   {v.problem}\n  do:   {v.remedy}\n")
    return "\n".join(parts)
