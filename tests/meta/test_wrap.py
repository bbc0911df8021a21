"""The prose of every page is wrapped at 120 columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.wrap import WIDTH, long_lines, main, rewrapped, wrapped
from tests.meta.tools import ROOT, markdown_files

LONG = "word " * 40


def test_every_page_is_wrapped() -> None:
    pages = markdown_files()
    assert ROOT / "README.md" in pages and ROOT / "docs" / "wire.md" in pages
    found = [
        f"{page.relative_to(ROOT)}:{number}: {len(line)} columns"
        for page in pages
        for number, line in long_lines(page.read_text(encoding="utf-8"))
    ]
    assert not found, "run `python -m scripts.wrap`:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (LONG, 1),
        (f"short\n{LONG}\nshort", 2),
        (f"- an item\n- {LONG}", 2),
        (f"1. {LONG}", 1),
        (f"- an item\n\n  {LONG}", 3),
        (f"```text\n{LONG}\n```\n{LONG}", 4),
        (f"<!-- a comment\n{LONG} -->\n{LONG}", 3),
        (f"[a link](page.md) {'x' * 60} {'y' * 60}", 1),
    ],
)
def test_planted_long_lines_are_found_and_wrapped(fault: str, line: int) -> None:
    assert [number for number, _ in long_lines(fault)] == [line]
    assert not long_lines(rewrapped(fault)) and rewrapped(fault).split() == fault.split()


@pytest.mark.parametrize(
    "page",
    [
        f"| {LONG} |",
        f"# {LONG}",
        f"```text\n{LONG}\n```",
        f"  ```text\n  {LONG}\n  ```",
        f"<!-- {LONG} -->",
        f"<img alt='{LONG}'>",
        f"[name]: https://example.invalid/{'x' * 120}",
        f"`{LONG}`",
        f"- [{LONG}](page.md)",
        f"https://example.invalid/{'x' * 120}",
        "x" * WIDTH,
    ],
)
def test_what_cannot_be_wrapped_is_left_as_it_is(page: str) -> None:
    assert not long_lines(page)
    assert rewrapped(page) == page


def test_a_badly_wrapped_paragraph_is_filled() -> None:
    assert rewrapped(f"{'word ' * 23}word\nword\n{'word ' * 10}") == f"{'word ' * 23}word\n{('word ' * 11).strip()}"
    assert rewrapped("- one\n  two\n- three<br>\n  four") == "- one two\n- three<br>\n  four"


def test_no_line_begins_with_the_mark_of_a_block() -> None:
    for mark in ("-", "+", "#", "2.", "|", ">"):
        lines = wrapped(f"{'x' * 57} {'y' * 60} {mark} z")
        assert lines[1].startswith("y") or not any(line.startswith(mark) for line in lines)


def test_the_command_reports_and_wraps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(LONG, encoding="utf-8")
    assert main(["--check", str(page)]) == 1
    assert "page.md:1: 200 columns" in capsys.readouterr().out
    assert main([str(page)]) == 0
    assert main(["--check", str(page)]) == 0
