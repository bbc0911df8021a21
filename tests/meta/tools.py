"""What the meta tests share: the repository's files, and child processes with deadlines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "extmem"

_NEVER = {
    ".git",
    ".venv",
    ".frameworks",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    ".windows",
    ".swiftshader",
    ".results",
    "__pycache__",
    "build",
    "dist",
    "extmem.egg-info",
}
_TEXT = {".py", ".md", ".toml", ".txt", ".sh", ".json", ".svg", ".yml", ".yaml", ".cfg", ".ini", ".c", ".h", ".csv", ""}


def files(root: Path = ROOT, suffixes: frozenset[str] | None = None) -> Iterator[Path]:
    """Yield every file of the project below `root`, sorted, without files that tools leave behind."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _NEVER and not name.endswith(".egg-info"))
        for name in sorted(names):
            path = Path(folder, name)
            # in a git worktree .git is a file
            if (
                (suffixes is None or path.suffix in suffixes)
                and name not in _NEVER
                and not name.startswith(".coverage")
            ):
                yield path


def text_files(root: Path = ROOT) -> Iterator[Path]:
    """Yield those of them that are text by their name."""
    return (path for path in files(root) if path.suffix in _TEXT)


def python_files(root: Path = SOURCE) -> list[Path]:
    """Return the Python files below `root`."""
    return list(files(root, frozenset({".py"})))


def markdown_files(root: Path = ROOT) -> list[Path]:
    """Return the documents: README and its neighbours, and everything in docs/ and examples/."""
    found = sorted(root.glob("*.md"))
    for folder in ("docs", "examples", "codegen", "fuzz"):
        if (root / folder).is_dir():
            found += files(root / folder, frozenset({".md"}))
    return found


def module_name(path: Path, source: Path = SOURCE) -> str:
    """Return `extmem.api.functions` for src/extmem/api/functions.py."""
    parts = path.relative_to(source.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run(
    args: Sequence[str | Path],
    *,
    cwd: Path,
    env: dict[str, str] | None = None,
    timeout: float = 60,
    python_path: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a child process in a session of its own: at the deadline it and all that it started are killed.

    A broker that it starts ends with the `Runtime` whose environment it got.
    """
    environment = dict(os.environ if env is None else env)
    environment["PYTHONPATH"] = str(SOURCE.parent) if python_path is None else python_path
    child = subprocess.Popen(
        [str(arg) for arg in args],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _kill_all_of(child)
        out, err = _rest_of(child)
        raise AssertionError(f"{args} did not end within {timeout} s\n--- stdout\n{out}\n--- stderr\n{err}") from None
    return subprocess.CompletedProcess(list(map(str, args)), child.returncode, out, err)


def _kill_all_of(child: subprocess.Popen[str]) -> None:
    """Kill it and, where there are sessions, all that it started."""
    if sys.platform == "win32":
        child.kill()
    else:
        os.killpg(child.pid, signal.SIGKILL)


def _rest_of(child: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what a killed child had written; on Windows its own children may hold its pipes."""
    try:
        return child.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        return "", "(its children still hold its pipes)"


def python(code: str, *, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new interpreter on the source tree."""
    return run([sys.executable, "-c", code], cwd=cwd, env=env)


def reported_by_mypy(folder: Path, source: str) -> list[str]:
    """Return the lines that `mypy --strict` reports of a program that uses the library."""
    program = folder / "program.py"
    program.write_text(source, encoding="utf-8")
    options = ["--config-file=", "--strict", "--follow-imports=silent", f"--cache-dir={folder / 'cache'}"]
    environment = {**os.environ, "MYPYPATH": str(SOURCE.parent)}
    checked = run([sys.executable, "-m", "mypy", *options, program], cwd=ROOT, env=environment, python_path="")
    assert not checked.stderr, checked.stderr
    return checked.stdout.splitlines()
