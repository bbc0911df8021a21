"""Every fenced block of README and the documentation runs and prints what it shows, or has a reason not to run."""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from tests import frameworks
from tests.meta.running import Block, blocks, complaints_about, documents, needed_by, run_document
from tests.meta.story import fits
from tests.meta.tools import ROOT

NOT_RUN = {
    "README.md": 2,
    "CONTRIBUTING.md": 1,
    "docs/concepts/channels.md": 1,
    "docs/guides/arrays.md": 2,
    "docs/guides/channels.md": 1,
    "docs/guides/cuda.md": 9,
    "docs/guides/from-safetensors.md": 1,
    "docs/guides/model-weights.md": 1,
    "docs/guides/order.md": 1,
    "docs/guides/other-bindings.md": 1,
    "docs/guides/top.md": 2,
    "docs/guides/windows.md": 2,
}
"""The number of blocks of each document that do not run. A new one is entered here; its reason is above the block."""

NEED_VULKAN = {"docs/guides/vulkan.md"}
WINDOWS = {"docs/guides/windows.md"}
"""Documents that run on Windows, in tests/windows."""

_DOCUMENTS = documents()
_IDS = [path.relative_to(ROOT).as_posix() for path in _DOCUMENTS]


def _document(path: Path) -> ParameterSet:
    needed = needed_by(path.read_text(encoding="utf-8"))
    marks = [pytest.mark.framework(*needed), pytest.mark.slow("imports what the document needs")] if needed else []
    return pytest.param(path, id=path.relative_to(ROOT).as_posix(), marks=marks)


@pytest.mark.parametrize("path", [_document(path) for path in _DOCUMENTS])
def test_blocks_run(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if path.relative_to(ROOT).as_posix() in NEED_VULKAN:
        request.getfixturevalue("vulkan_device")
    text = path.read_text(encoding="utf-8")
    found = blocks(text)
    assert not complaints_about(found)
    if path.relative_to(ROOT).as_posix() in WINDOWS:
        return
    running = [block for block in found if block.language in ("python", "console") and block.reason is None]
    if running:
        problem = run_document(found, tmp_path, name=path.name, timeout=300 if needed_by(text) else 60)
        assert not problem, problem


def test_the_blocks_that_do_not_run_are_those_of_the_allow_list() -> None:
    counted = {
        name: sum(block.reason is not None for block in blocks(path.read_text(encoding="utf-8")))
        for name, path in zip(_IDS, _DOCUMENTS, strict=True)
    }
    assert {name: count for name, count in counted.items() if count} == NOT_RUN


def test_what_a_document_needs_is_read() -> None:
    assert needed_by("# A\n\n<!-- needs: torch, pyarrow -->\n\ntext `<!-- needs: jax -->`\n") == ["torch", "pyarrow"]
    assert needed_by("# A\n\nIt needs: torch\n") == []
    for path in _DOCUMENTS:
        assert set(needed_by(path.read_text(encoding="utf-8"))) <= set(frameworks.FRAMEWORKS), path


def test_blocks_are_found_at_all() -> None:
    total = sum(len(blocks(path.read_text(encoding="utf-8"))) for path in _DOCUMENTS)
    assert total > 40, "the test reads the wrong folder"


# Planted faults.


def _story(text: str, tmp_path: Path, *, timeout: float = 30) -> str:
    found = blocks(text)
    return "\n".join(complaints_about(found)) or run_document(found, tmp_path, name="planted.md", timeout=timeout)


def _fenced(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```", ""])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_fenced("python", "raise KeyError('planted')"), "planted.md:1"),
        (_fenced("python", "x = 1") + _fenced("python", "assert x == 2"), "AssertionError"),
        (_fenced("python", "import warnings", "warnings.warn('old', DeprecationWarning)"), "DeprecationWarning"),
        (_fenced("python", "import sys", "sys.exit(3)"), "SystemExit"),
        (_fenced("console", "$ exit 3"), "ended with 3"),
        (_fenced("console", "$ exit 3", "$ true"), "ended with 3"),
        (_fenced("console", "$ echo one", "two"), "and not"),
        ("<!-- exit status: 2 -->\n" + _fenced("console", "$ true"), "ended with 0, not 2"),
        (_fenced("python", "# lost.py", "print(1)"), "never run"),
        (_fenced("console", "no command"), "without a command"),
        (_fenced("", "what is this"), "language ''"),
        ("<!-- not run: -->\n" + _fenced("python", "x"), "no reason"),
    ],
)
def test_planted_fault_is_found(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in _story(text, tmp_path)


def test_planted_endless_block_is_found(tmp_path: Path) -> None:
    text = _fenced("python", "import threading", "threading.Event().wait()")
    assert "did not end" in _story(text, tmp_path, timeout=0.5)


def test_a_right_story_passes(tmp_path: Path) -> None:
    text = (
        _fenced("python", "# told.py", "import sys", "print('told', *sys.argv[1:])")
        + _fenced("python", "x = 1")
        + _fenced("python", "assert x == 1")
        + _fenced("console", "$ python told.py a", "told a", "$ echo one two three", "one ... three")
        + "<!-- exit status: 4 -->\n"
        + _fenced("console", "$ exit 4")
        + "<!-- not run: it would explode -->\n"
        + _fenced("python", "1 / 0")
        + _fenced("text", "not code")
    )
    assert _story(text, tmp_path) == ""


def test_blocks_are_distinguished() -> None:
    text = "a\n\n- b\n  ```python\n  x = 1\n  ```\n\n<!-- not run: no\n reason -->\n```console\n$ y\n```\n"
    assert blocks(text) == [
        Block(4, "python", "x = 1\n"),
        Block(10, "console", "$ y\n", reason="no\n reason"),
    ]


def test_output_fits() -> None:
    assert fits("a  b\nc", "a b c")
    assert fits("pid 123 done [x]", "pid ... done [x]")
    assert fits("pid 123 done", "pid ...")
    assert not fits("a b", "a")
    assert not fits("ax", "a?")
