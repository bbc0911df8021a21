"""No module is longer than 450 lines without a reason. Generated files are exempt, tests and scripts are not."""

from __future__ import annotations

from pathlib import Path

from tests.meta.tools import ROOT, python_files

MOST = 450
REASONS = {
    "src/extmem/api/device.py": "its classes return objects of each other: two files would be a circle of imports",
}
"""Longer modules, and why no seam is in them."""
FOLDERS = ("src", "tests", "codegen", "scripts", "examples", "fuzz")


def too_long(root: Path) -> list[str]:
    """Return every Python file below `root` with more than `MOST` lines that is not generated."""
    found = []
    for folder in FOLDERS:
        if not (root / folder).is_dir():
            continue
        for path in python_files(root / folder):
            lines = path.read_text(encoding="utf-8").count("\n")
            name = path.relative_to(root).as_posix()
            if lines > MOST and "_generated" not in path.parts and name not in REASONS:
                found.append(f"{name}: {lines} lines")
    return found


def test_no_module_is_longer_than_450_lines() -> None:
    assert not too_long(ROOT), "split these by subject:\n" + "\n".join(too_long(ROOT))


def test_each_reason_is_of_a_module_that_is_longer() -> None:
    for name in REASONS:
        assert (ROOT / name).read_text(encoding="utf-8").count("\n") > MOST


def test_planted_long_module_is_found_and_a_generated_one_is_not(tmp_path: Path) -> None:
    for name, lines in [("a.py", 451), ("b.py", 450), ("_generated/c.py", 9_000)]:
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n" * lines, encoding="utf-8")
    assert too_long(tmp_path) == ["src/a.py: 451 lines"]
