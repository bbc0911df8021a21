"""Running what the documents and examples show: blocks in order, in a private runtime directory, with a deadline.

How this works. The fenced blocks of a document are one session. Blocks of language `python` run one after another in
one interpreter, as typed at a prompt; one whose first line is a comment with a file name (`# reader.py`) is saved under
that name instead, and a console block or another such file of the document must run it. In blocks of language `console`
each line that starts with `$ ` is a command for the shell (`> ` continues it); the lines below it are its expected
output (`...` matches anything). Language `powershell` is the same on Windows, with the prompt `PS> `. All of it happens
in an empty folder, with a broker of its own. A block that cannot run has a comment above it with the reason: `<!-- not
run: … -->`. One whose last command must fail has `<!-- exit status: 1 -->`. A document whose blocks need a framework
has `<!-- needs: torch -->` (or several, with commas) on a line of its own.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from extmem.testing.runtime import Runtime
from tests.meta.tools import ROOT, run

__all__ = ["Block", "blocks", "complaints_about", "needed_by", "private_environment", "run_document"]

RUNNABLE = ("python", "console", "powershell")
PROMPTS = {"console": "$ ", "powershell": "PS> "}
SHOWN = ("text", "c", "json", "toml", "xml", "diff", "mermaid")
"""Languages of blocks that are only read."""

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ \t]*$", re.MULTILINE | re.DOTALL
)
_NOT_RUN = re.compile(r"<!--\s*not run:\s*(?P<reason>.*?)\s*-->\s*\Z", re.DOTALL)
_STATUS = re.compile(r"<!--\s*exit status:\s*(?P<status>\d+)\s*-->\s*\Z")
_NEEDS = re.compile(r"^<!--\s*needs:\s*(?P<packages>[\w, ]+?)\s*-->$", re.MULTILINE)
_FILE = re.compile(r"# (?P<name>[\w-]+\.py)\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    line: int
    language: str
    text: str
    reason: str | None = None
    """The reason why it does not run."""
    status: int = 0
    """The exit status that its last command must have."""
    saved_as: str | None = None


def blocks(text: str) -> list[Block]:
    """Return every fenced block of a document, in order."""
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip()
        reason, status = _NOT_RUN.search(before), _STATUS.search(before)
        indent = match["indent"]
        body = "".join(line.removeprefix(indent) for line in match["body"].splitlines(keepends=True))
        language = match["info"].strip().split(" ")[0]
        saved = _FILE.match(body.partition("\n")[0]) if language == "python" else None
        found.append(
            Block(
                line=text.count("\n", 0, match.start()) + 1,
                language=language,
                text=body,
                reason=reason["reason"] if reason else None,
                status=int(status["status"]) if status else 0,
                saved_as=saved["name"] if saved else None,
            )
        )
    return found


def needed_by(text: str) -> list[str]:
    """Return the packages that the blocks of a document need, besides those of `make test`."""
    return [package.strip() for match in _NEEDS.finditer(text) for package in match["packages"].split(",")]


def complaints_about(found: list[Block]) -> list[str]:
    """Return what is wrong with a document's blocks before any of them runs."""
    wrong = []
    runs = [block for block in found if block.reason is None and (block.language in PROMPTS or block.saved_as)]
    for block in found:
        if block.language not in RUNNABLE + SHOWN:
            wrong.append(f"line {block.line}: a block of language {block.language!r}; use one of {RUNNABLE + SHOWN}")
        if block.reason == "":
            wrong.append(f"line {block.line}: not run, and no reason given")
        if block in runs and block.saved_as and not any(block.saved_as in b.text for b in runs if b is not block):
            wrong.append(f"line {block.line}: {block.saved_as} is saved and never run")
        prompt = PROMPTS.get(block.language)
        if prompt and block.reason is None and not any(line.startswith(prompt) for line in block.text.splitlines()):
            wrong.append(f"line {block.line}: a {block.language} block without a command")
    return wrong


def private_environment(runtime: Runtime) -> dict[str, str]:
    """Return this process's environment with a private object manager, without variables of extmem and the tests."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("EXTMEM_", "COV_", "PYTEST_"))
    }
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    environment |= {"NO_COLOR": "1", "COLUMNS": "200", **runtime.environment}
    return environment


def run_document(found: list[Block], folder: Path, *, name: str, timeout: float = 60) -> str:
    """Run the blocks in `folder`. Return what went wrong; "" if nothing did."""
    here = folder / "here"
    here.mkdir()
    story = folder / "story.json"
    story.write_text(json.dumps([asdict(block) for block in found]), encoding="utf-8")
    with Runtime() as runtime:
        try:
            result = run(
                [sys.executable, "-X", "dev", "-W", "error", Path(__file__).with_name("story.py"), story, name],
                cwd=here,
                env=private_environment(runtime),
                timeout=timeout,
            )
        except AssertionError as error:
            return str(error)
    return "" if result.returncode == 0 else f"{result.stdout}{result.stderr}"


def documents() -> list[Path]:
    """Return the documents whose blocks run: on Linux, except the Windows guide."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
