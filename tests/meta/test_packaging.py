"""What users install: the contents of the wheel, and the library working from it, away from the source tree."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from extmem.testing.runtime import Runtime
from tests.meta.running import private_environment
from tests.meta.tools import ROOT, files, run

NEEDED = (
    "extmem/py.typed",
    "extmem/rules/ledger.json",
    "extmem/vk/_generated/structs.py",
    "extmem/vk/_generated/structs.pyi",
    "extmem/wire/codec.py",
    "extmem/cli/__init__.py",
    "extmem/cli/_bench/floor.c",
)


def wrong_contents(names: list[str]) -> list[str]:
    """Return what a wheel lacks, and what it must not contain."""
    lacking = [f"lacks {name}" for name in NEEDED if name not in names]
    strange = [
        f"holds {name}"
        for name in names
        if not name.startswith(("extmem/", "extmem-"))
        or "/tests/" in name
        or "test_" in name
        or name.endswith((".pyc", ".so"))
    ]
    return lacking + strange


def _build(source: Path, into: Path) -> Path:
    """Build the wheel of a copy of the source tree, because building must leave nothing behind in the tree itself."""
    tree = into / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(source / name, tree / name)
    shutil.copytree(source / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    result = subprocess.run(
        [*command, "--no-build-isolation", "--wheel-dir", str(into / "wheels"), str(tree)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    (wheel,) = (into / "wheels").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built once."""
    return _build(ROOT, tmp_path_factory.mktemp("packaging"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel unpacked as pip does, and nothing else."""
    site = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-index",
    ]
    result = subprocess.run(
        [*command, "--target", str(site), str(wheel)], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return site


@pytest.fixture
def away(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """An empty folder far from the source tree, and an environment with a broker of its own."""
    here = tmp_path / "away"
    here.mkdir()
    with Runtime() as runtime:
        yield here, private_environment(runtime)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert not wrong_contents(names)
    shipped = {name for name in names if name.startswith("extmem/")}
    source = {
        str(path.relative_to(ROOT / "src"))
        for path in files(ROOT / "src" / "extmem")
        if path.suffix in (".py", ".json")
    }
    assert source <= shipped, f"not shipped: {sorted(source - shipped)}"


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert wheel.name.startswith(f"extmem-{version}-py3-none-any")
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"extmem-{version}.dist-info/METADATA").decode()
        entry_points = archive.read(f"extmem-{version}.dist-info/entry_points.txt").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "extmem = extmem.cli:main" in entry_points


def test_the_version_is_stated_once_and_for_all() -> None:
    import extmem

    assert (
        tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == extmem.__version__
    )


COMPILED = {"cffi", "msgspec"}
"""Packages that may have compiled parts."""
ON_WINDOWS = {"colorama": "has Python code alone, and is installed on Windows alone"}


def names_required(lines: Iterable[str]) -> list[str]:
    """Return the packages that these requirements name without extras, on any platform and any supported Python."""
    found = []
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or any(
            requirement.marker.evaluate(
                {**system, "extra": "", "python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0"}
            )
            for system in ({"sys_platform": "linux"}, {"sys_platform": "win32", "platform_system": "Windows"})
            for minor in range(11, 15)
        ):
            found.append(canonicalize_name(requirement.name))
    return found


def brought_by(lines: Iterable[str]) -> dict[str, list[str]]:
    """Return every package that these requirements install, and its compiled files.

    It follows the packages that are installed here: one that is not installed, and not listed as another system's, is
    an error.
    """
    found: dict[str, list[str]] = {}
    todo = names_required(lines)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            assert name in ON_WINDOWS and sys.platform != "win32", f"{name} is required, and is not installed here"
            found[name] = []
            continue
        parts = [str(file) for file in package.files or ()]
        found[name] = [part for part in parts if part.endswith((".so", ".pyd", ".dll", ".dylib"))]
        assert found[name] or "Root-Is-Purelib: true" in (package.read_text("WHEEL") or "").splitlines(), name
        todo += names_required(package.requires or ())
    return found


def _required(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return re.findall(r"^Requires-Dist: (.*)$", archive.read(name).decode(), re.MULTILINE)


def test_nothing_that_the_wheel_brings_is_compiled_but_cffi_and_msgspec(wheel: Path) -> None:
    found = brought_by(_required(wheel))
    assert {name for name, compiled in found.items() if compiled} == COMPILED, found


def test_contributing_lists_what_the_wheel_brings(wheel: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = text.partition("The packages in an empty environment:\n\n```text\n")[2].partition("```")[0].split()
    assert listed == sorted({"extmem", *brought_by(_required(wheel))} - set(ON_WINDOWS))


_WORKS = """
import sys, extmem
assert extmem.__file__.startswith(sys.argv[1]), extmem.__file__
from extmem.rules import ledger
assert len(ledger.rows()) > 100
with extmem.open_device() as device, device.allocate(4096, name="packaging") as memory:
    memory.map()[0] = 7
    with extmem.open("packaging") as again:
        print(again.map()[0])
"""


def test_the_installed_wheel_works_from_an_empty_directory(installed: Path, away: tuple[Path, dict[str, str]]) -> None:
    here, environment = away
    result = run([sys.executable, "-c", _WORKS, installed], cwd=here, env=environment, python_path=str(installed))
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "7"


# Planted faults.


def test_planted_compiled_requirements_are_found(wheel: Path) -> None:
    """One fault of the wheel itself, and one that a dependency brings."""
    clean = _required(wheel)
    direct = brought_by([*clean, "pillow"])
    assert direct["pillow"] and not brought_by(clean).get("pillow")
    assert brought_by(["mypy"])["librt"], "mypy brings it"
    assert "pillow" not in brought_by([*clean, 'pillow ; extra == "demo"'])
    with pytest.raises(AssertionError, match="nowhere is required"):
        brought_by(["nowhere"])


@pytest.mark.parametrize("missing", NEEDED)
def test_planted_missing_file_is_found(missing: str) -> None:
    assert wrong_contents([name for name in NEEDED if name != missing]) == [f"lacks {missing}"]


@pytest.mark.parametrize(
    "extra", ["tests/meta/test_layers.py", "extmem/tests/x.py", "extmem/vk/abi.cpython-311.pyc", "codegen/scope.py"]
)
def test_planted_stray_file_is_found(extra: str) -> None:
    assert wrong_contents([*NEEDED, extra]) == [f"holds {extra}"]
    assert wrong_contents([*NEEDED, "extmem-0.1.0.dist-info/METADATA"]) == []


def test_planted_wheel_without_the_ledger_is_found(tmp_path: Path) -> None:
    """A tree without its package data builds a wheel that the check refuses."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, broken / name)
    text = (broken / "pyproject.toml").read_text(encoding="utf-8")
    assert '"rules/*.json"' in text
    (broken / "pyproject.toml").write_text(text.replace('"rules/*.json"', '"rules/*.nothing"'), encoding="utf-8")
    (broken / "src").mkdir()
    shutil.copytree(ROOT / "src" / "extmem", broken / "src" / "extmem", ignore=shutil.ignore_patterns("__pycache__"))
    with zipfile.ZipFile(_build(broken, tmp_path)) as archive:
        assert wrong_contents(archive.namelist()) == ["lacks extmem/rules/ledger.json"]
