"""The tests of each numbered behaviour: the last column of docs/behaviours.md, from the names of the tests.

Behaviours of memory and of the object manager have numbers with B, those of semaphores and fences with S.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["OF_SECTIONS", "WITHOUT", "fill", "numbers", "short", "tested"]

WITHOUT = {
    50: "calls of Direct3D, which extmem does not support",
    63: "sets of kernel objects that can be shared; memory is the only kind",
    70: "private data of a driver; extmem has the descriptor in its place, which has tests of its own",
    71: "kernel allocations and resources; a payload is one allocation",
    72: "keyed mutexes are not supported yet",
    74: "imports of Direct3D, which extmem does not support",
    105: "VK_EXT_device_memory_report is not supported yet",
}
"""Behaviours without a test, each with the reason."""
OF_SECTIONS = {
    16: "SYNCHRONIZE is dropped, because a section cannot be waited for",
    25: "a host payload's type is `Section`",
}
"""Behaviours of GPU memory that differ for host payloads on Windows, which are sections; their tests expect that."""
_TEST = re.compile(r"^\s*(?:async )?def (test_\w+)\(", re.MULTILINE)
_NUMBER = re.compile(r"(?<![A-Za-z0-9])([BS])(\d{1,3})(?!\d)")
_ROW = re.compile(r"^(\| ([BS])(\d+) \|.*\|) [^|]*\|$", re.MULTILINE)
_BARE = re.compile(r"^(\| [BS]\d+ \|.*\|) \|$", re.MULTILINE)


def tested(root: Path, letter: str = "B") -> dict[int, list[str]]:
    """Return for each behaviour the files, relative to the root, with a test whose name contains its number."""
    found: dict[int, set[str]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        for name in _TEST.findall(path.read_text(encoding="utf-8")):
            for number in numbers(name, letter):
                found.setdefault(number, set()).add(str(path.relative_to(root)))
    return {number: sorted(names) for number, names in found.items()}


def numbers(name: str, letter: str = "B") -> list[int]:
    """Return the numbers of the behaviours in the name of a test."""
    return [int(number) for found, number in _NUMBER.findall(name.replace("_", " ")) if found == letter]


def short(name: str) -> str:
    """Return the short name of a test file for a table."""
    path = Path(name)
    return f"{path.parent.name}/{path.stem.removeprefix('test_')}"


def fill(text: str, root: Path) -> str:
    """Return the page with the last cell of each behaviour's row filled in from the tests."""
    where = {letter: tested(root, letter) for letter in "BS"}

    def one(match: re.Match[str]) -> str:
        names = where[match[2]].get(int(match[3]), [])
        links = ", ".join(f"[{short(name)}](../{name})" for name in names)
        return f"{match[1]} {links or '–'} |"

    return _ROW.sub(one, _BARE.sub(r"\1  |", text))
