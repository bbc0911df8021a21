"""A skip with a reason that nobody listed is a failure, and so is one of a part that is expected to be here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ALLOWED_SKIPS, refused_skip

ROOT = Path(__file__).parents[2]
CONFTEST = "from tests.conftest import pytest_runtest_makereport, pytest_make_collect_report  # noqa: F401\n"
SKIPS = """
import pytest
def test_listed():
    pytest.skip("NumPy is not installed")
@pytest.mark.skipif(True, reason="NumPy is not installed")
def test_marked():
    pass
"""
UNLISTED = "import pytest\ndef test_unlisted():\n    pytest.skip('it is raining')\n"
MODULE = "import pytest\npytest.skip('it is raining', allow_module_level=True)\n"
XFAIL = "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_known():\n    assert False\n"


def outcome(tmp_path: Path, source: str, expect: str = "") -> tuple[int, str]:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(source)
    environment = {**os.environ, "EXTMEM_EXPECT": expect, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60, check=False
    )
    return done.returncode, done.stdout


def test_a_listed_skip_is_a_skip(tmp_path: Path) -> None:
    code, said = outcome(tmp_path, SKIPS)
    assert code == 0 and "2 skipped" in said, said


def test_where_the_part_is_expected_it_is_a_failure(tmp_path: Path) -> None:
    code, said = outcome(tmp_path, SKIPS, "broker,numpy")
    assert code == 1 and "EXTMEM_EXPECT says that numpy is here" in said and "2 failed" in said or "2 error" in said, (
        said
    )


def test_an_unlisted_skip_is_a_failure(tmp_path: Path) -> None:
    code, said = outcome(tmp_path, UNLISTED)
    assert code == 1 and "it is raining" in said, said


def test_a_whole_module_cannot_be_skipped_for_an_unlisted_reason_either(tmp_path: Path) -> None:
    code, said = outcome(tmp_path, MODULE)
    assert code != 0 and "it is raining" in said, said


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    code, said = outcome(tmp_path, XFAIL)
    assert code == 0 and "1 xfailed" in said, said


@pytest.mark.parametrize("part", ALLOWED_SKIPS)
def test_each_part_of_the_list_is_refused_where_it_is_expected(part: str) -> None:
    reason = ALLOWED_SKIPS[part].replace("\\", "")
    assert refused_skip(reason, set()) is None
    assert part in str(refused_skip(reason, {part}))
    assert refused_skip("whatever", set()) is not None
