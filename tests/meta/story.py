"""Run one document's blocks, in order; see running.py. Usage: python story.py BLOCKS.json NAME"""

from __future__ import annotations

import fnmatch
import json
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any


def main(path: str, name: str) -> int:
    """Run the blocks. Return 0 if every block succeeded."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in json.loads(Path(path).read_text(encoding="utf-8")):
        if block["reason"] is not None or block["language"] not in ("python", "console", "powershell"):
            continue
        where = f"{name}:{block['line']}"
        if block["saved_as"]:
            Path(block["saved_as"]).write_text(block["text"], encoding="utf-8")
            continue
        if block["language"] != "python":
            problem = console(block["text"], block["status"], "$ " if block["language"] == "console" else "PS> ")
        else:
            problem = python(block["text"], where, namespace)
        if problem:
            print(f"{where}: {problem}")
            return 1
    return 0


def python(text: str, where: str, namespace: dict[str, Any]) -> str:
    """Run the block. Return what went wrong; "" if nothing did."""
    try:
        exec(compile(text, where, "exec"), namespace)
    except BaseException:  # noqa: BLE001  # a document may raise anything; it is reported
        return traceback.format_exc()
    return ""


def commands(text: str, prompt: str) -> list[tuple[str, str]]:
    """Return each command after a prompt with the output that is shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith(prompt):
            found.append((line.removeprefix(prompt), []))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        elif found:
            found[-1][1].append(line)
    return [(command, "\n".join(lines).strip()) for command, lines in found]


def console(text: str, status: int, prompt: str) -> str:
    """Run each command of the block. Return what went wrong; "" if nothing did."""
    listed = commands(text, prompt)
    for number, (command, expected) in enumerate(listed):
        # Output goes to a file: a pipe would be held open by processes that a command leaves in the background.
        with tempfile.TemporaryFile("w+") as output:
            # The blocks of PowerShell only start programs, which its older shell can do, too.
            shell = ["bash", "-c", command] if prompt == "$ " else ["cmd", "/d", "/c", command]
            code = subprocess.run(shell, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
            output.seek(0)
            printed = output.read().strip()
        due = status if number == len(listed) - 1 else 0
        if code != due:
            return f"`{command}` ended with {code}, not {due}\n{printed}"
        if expected and not fits(printed, expected):
            return f"`{command}` printed\n{printed}\n--- and not\n{expected}"
    return ""


def fits(printed: str, expected: str) -> bool:
    """Return whether the output is the expected one, where `...` matches anything and all white space is equal."""
    pattern = " ".join(expected.split())
    for special in "[":
        pattern = pattern.replace(special, f"[{special}]")
    return fnmatch.fnmatchcase(
        " ".join(printed.split()), pattern.replace("?", "[?]").replace("*", "[*]").replace("...", "*")
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
