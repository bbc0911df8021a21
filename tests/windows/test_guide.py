"""The Windows guide is true, including its programs and commands."""

from __future__ import annotations

from pathlib import Path

from tests.meta.running import blocks, complaints_about, run_document
from tests.meta.tools import ROOT

GUIDE = ROOT / "docs" / "guides" / "windows.md"


def test_its_blocks_run(tmp_path: Path) -> None:
    found = blocks(GUIDE.read_text(encoding="utf-8"))
    assert not complaints_about(found)
    assert {block.language for block in found if block.reason is None} == {"python", "powershell"}
    problem = run_document(found, tmp_path, name=GUIDE.name)
    assert not problem, problem


def test_a_command_that_prints_something_else_is_seen(tmp_path: Path) -> None:
    text = "```python\n# told.py\nprint('one')\n```\n\n```powershell\nPS> python told.py\ntwo\n```\n"
    assert "and not\ntwo" in run_document(blocks(text), tmp_path, name="planted.md").replace("\r", "")
