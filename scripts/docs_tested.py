"""Which tests hold each numbered behaviour: the last column of docs/behaviours.md, from the tests' names."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["OF_SECTIONS", "WITHOUT", "fill", "numbers", "short", "tested"]

WITHOUT = {
    50: "Direct3D's calls; there is no Direct3D here",
    63: "which kernel objects can be shared together; memory is the only kind",
    70: "a driver's private data; ours is the descriptor, which has tests of its own",
    71: "kernel allocations and resources; a payload is one allocation",
    72: "keyed mutexes are not there yet",
    74: "Direct3D's imports; there is no Direct3D here",
    105: "VK_EXT_device_memory_report is not there yet",
    106: "semaphores are not there yet",
}
"""Behaviours that have no test, and why."""
OF_SECTIONS = {
    16: "SYNCHRONIZE is dropped, as nobody can wait for a section",
    25: "a host payload's type is `Section`",
}
"""Behaviours of GPU memory that host payloads on Windows have otherwise, being sections; their tests know it."""
_TEST = re.compile(r"^\s*(?:async )?def (test_\w+)\(", re.MULTILINE)
_NUMBER = re.compile(r"(?<![A-Za-z0-9])B(\d{1,3})(?!\d)")
_ROW = re.compile(r"^(\| B(\d+) \|.*\|) [^|]*\|$", re.MULTILINE)
_BARE = re.compile(r"^(\| B(\d+) \|.*\|) \|$", re.MULTILINE)


def tested(root: Path) -> dict[int, list[str]]:
    """Behaviour → the files with a test that has its number in its name, from the root."""
    found: dict[int, set[str]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        for name in _TEST.findall(path.read_text(encoding="utf-8")):
            for number in numbers(name):
                found.setdefault(number, set()).add(str(path.relative_to(root)))
    return {number: sorted(names) for number, names in found.items()}


def numbers(name: str) -> list[int]:
    """The behaviours that a test's name names."""
    return [int(number) for number in _NUMBER.findall(name.replace("_", " "))]


def short(name: str) -> str:
    """How a test file is called in a table."""
    path = Path(name)
    return f"{path.parent.name}/{path.stem.removeprefix('test_')}"


def fill(text: str, root: Path) -> str:
    """The page with the last cell of each behaviour's row as the tests have it now."""
    where = tested(root)

    def one(match: re.Match[str]) -> str:
        names = where.get(int(match[2]), [])
        links = ", ".join(f"[{short(name)}](../{name})" for name in names)
        return f"{match[1]} {links or '–'} |"

    return _ROW.sub(one, _BARE.sub(r"\1  |", text))
