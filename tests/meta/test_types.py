"""The type checker visits every module, also those that are checked only where a module of one system imports them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.tools import ROOT, SOURCE

ONE_SYSTEM = [path for folder in ("broker", "manager/linux") for path in sorted((SOURCE / folder).glob("*.py"))]
"""The modules that `exclude` in pyproject.toml removes from those that mypy checks on both systems."""


@pytest.mark.slow("runs mypy on the whole library")
def test_a_fault_in_a_module_of_one_system_is_reported(tmp_path: Path) -> None:
    shadows = []
    for number, path in enumerate(ONE_SYSTEM):
        copy = tmp_path / f"{number}.py"
        copy.write_text(path.read_text(encoding="utf-8") + '\nplanted_fault: int = ""\n', encoding="utf-8")
        shadows += ["--shadow-file", str(path.relative_to(ROOT)), str(copy)]
    command = [sys.executable, "-m", "mypy", "--platform", "linux", "--cache-dir", str(tmp_path / "cache"), *shadows]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    reported = {line for line in result.stdout.splitlines() if "[assignment]" in line}
    names = {match[1] for line in reported if (match := re.match(r"(\S+?\.py):", line))}
    assert names == {str(path.relative_to(ROOT)) for path in ONE_SYSTEM}, result.stdout + result.stderr
