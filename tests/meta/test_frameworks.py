"""Every test that needs a framework has the mark by which the step of continuous integration selects it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests import frameworks
from tests.conftest import ALLOWED_SKIPS, refused_skip
from tests.meta.tools import ROOT

PLANTED = """
import pytest
polars = "a helper's own name"

def helper():
    return pytest.importorskip("polars", reason="Polars is not installed")

@pytest.fixture
def frame():
    return helper()

def test_plain(): pass
def test_direct(): pytest.importorskip("jax.numpy", reason="JAX is not installed")
def test_by_helper(): helper()
def test_by_fixture(frame): pass
class TestGroup:
    def test_inside(self): helper()
"""


def test_needs_are_found_in_tests_helpers_and_fixtures() -> None:
    needs = frameworks.Needs(PLANTED)
    assert needs.module == set() and needs.of("test_plain") == set()
    assert needs.of("test_direct") == {"jax"}
    assert needs.of("test_by_helper") == needs.of("test_by_fixture") == needs.of("test_inside") == {"polars"}
    module = frameworks.Needs('torch: Any = pytest.importorskip("torch")\ndef test_any(): pass')
    assert module.of("test_any") == {"torch"}
    assert frameworks.Needs('pytest.importorskip("numpy")').module == set()


def test_the_files_that_the_step_collects() -> None:
    found = {path.relative_to(frameworks.TESTS).as_posix() for path in frameworks.files()}
    assert {"unit/interop/test_torch.py", "unit/interop/test_jax.py", "meta/test_examples.py"} <= found
    assert "unit/test_errors.py" not in found and not any(name.startswith("gpu/") for name in found)


@pytest.mark.parametrize(("package", "words"), frameworks.FRAMEWORKS.items())
def test_a_skip_for_a_missing_framework_fails_where_it_is_expected(package: str, words: str) -> None:
    reason = f"{words} is not installed"
    assert (
        package in ALLOWED_SKIPS and frameworks.named_in(reason) and not frameworks.named_in("NumPy is not installed")
    )
    assert refused_skip(reason, set()) is None and package in str(refused_skip(reason, {package}))


def _run(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    (folder / "conftest.py").write_text(
        "from tests.conftest import pytest_addoption, pytest_configure\n"
        "from tests.conftest import pytest_runtest_makereport, pytest_make_collect_report\n"
        "from tests import frameworks\n"
        "frameworks.FRAMEWORKS |= {'no_such_package': 'Nothing'}\n"
    )
    done = subprocess.run(
        [*command, *options, str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=100,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
    )
    return done.stdout + done.stderr


@pytest.mark.slow("runs pytest twice")
def test_a_skip_without_the_mark_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "test_planted.py").write_text(
        "import pytest\n"
        "def test_unmarked(): pytest.skip('PyTorch is not installed')\n"
        "@pytest.mark.framework('no_such_package')\n"
        "def test_marked(): raise AssertionError('the plugin skips it')\n"
        "def test_other(): pass\n"
    )
    printed = _run(tmp_path)
    assert re.search(r"FAILED.*test_unmarked", printed) and "without the mark framework" in printed, printed
    # Its reason is none of the allow-list, as the package is planted: so it was skipped before the test ran.
    assert re.search(r"test_marked.*", printed) and "Nothing is not installed" in printed, printed
    selected = _run(tmp_path, "-m", "framework", "--collect-only")
    assert "test_marked" in selected and "test_other" not in selected, selected


def test_the_step_installs_and_expects_every_framework() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = {Requirement(line).name for line in project["optional-dependencies"]["frameworks"]}
    assert extra == set(frameworks.FRAMEWORKS)
    script = (ROOT / "scripts" / "check.sh").read_text(encoding="utf-8")
    rest = re.search(r"^rest\(\) \{\n(.*?)^\}", script, re.MULTILINE | re.DOTALL)
    assert rest is not None and re.search(r"^ +tests_with_frameworks$", rest[1], re.MULTILINE)
    made = re.search(r"^test-rest:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert made is not None and "scripts/setup.sh frameworks" in made[1]
    stated = re.search(r"^frameworks=(\S+)$", script, re.MULTILINE)
    assert stated is not None and set(stated[1].split(",")) == set(frameworks.FRAMEWORKS)
