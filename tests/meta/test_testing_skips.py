"""A skip with a reason that is not listed is a failure, and so is one for a part that is expected to be present."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ALLOWED_SKIPS, refused_skip

ROOT = Path(__file__).parents[2]
CONFTEST = "from tests.conftest import pytest_runtest_makereport, pytest_make_collect_report  # noqa: F401\n"
FILES = {
    "test_some.py": """
import pytest
def test_listed():
    pytest.skip("NumPy is not installed")
@pytest.mark.skipif(True, reason="NumPy is not installed")
def test_marked():
    pass
def test_unlisted():
    pytest.skip("it is raining")
@pytest.mark.xfail(reason="known")
def test_known():
    assert False
def test_plain():
    pass
""",
    "test_module.py": "import pytest\npytest.skip('it is snowing', allow_module_level=True)\n",
}


def outcomes(where: Path, expect: str) -> dict[str, str]:
    """Return the outcome of each test: the word in pytest's short summary, by name."""
    (where / "conftest.py").write_text(CONFTEST)
    for file, source in FILES.items():
        (where / file).write_text(source)
    environment = {**os.environ, "EXTMEM_EXPECT": expect, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--rootdir", str(where)]
    done = subprocess.run(
        [*command, "--continue-on-collection-errors", str(where)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=where,
        timeout=100,
        check=False,
    )
    found = {}
    for word, name in re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL) (.*)$", done.stdout, re.MULTILINE):
        found[name.split("::")[-1].split(" ")[0] if word != "SKIPPED" else name] = word
    assert found, done.stdout + done.stderr
    return found


def test_a_listed_skip_is_a_skip_and_an_unlisted_one_is_a_failure(tmp_path: Path) -> None:
    found = outcomes(tmp_path, "broker")
    assert (found["test_plain"], found["test_known"]) == ("PASSED", "XFAIL")
    assert found["test_unlisted"] == "FAILED"
    assert found["test_module.py"] == "ERROR"
    skipped = [name for name, word in found.items() if word == "SKIPPED"]
    assert skipped and all("NumPy is not installed" in name for name in skipped)
    assert "test_listed" not in found and "test_marked" not in found


def test_where_the_part_is_expected_a_listed_skip_is_a_failure_too(tmp_path: Path) -> None:
    found = outcomes(tmp_path, "broker, numpy")
    assert found["test_listed"] == "FAILED"
    assert found["test_marked"] in ("FAILED", "ERROR")
    assert found["test_plain"] == "PASSED"
    assert "SKIPPED" not in found.values()


@pytest.mark.parametrize("part", ALLOWED_SKIPS)
def test_each_part_of_the_list_is_refused_where_it_is_expected(part: str) -> None:
    reason = ALLOWED_SKIPS[part].replace("\\", "")
    assert refused_skip(reason, set()) is None
    assert part in str(refused_skip(reason, {part}))
    assert refused_skip("whatever", set()) is not None
