"""Every dependency is pinned, every pin belongs to a dependency, and CONTRIBUTING gives the reason of each."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.frameworks import FRAMEWORKS
from tests.meta.tools import ROOT

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([A-Za-z0-9.+!-]+)(?:\s*;.*)?(?:\s+#.*)?$")


def pins(text: str) -> tuple[dict[str, str], list[str]]:
    """Return name → version of a constraints file, and the lines that are not an exact pin."""
    found: dict[str, str] = {}
    strange = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _PIN.match(line)
        if match is None:
            strange.append(line)
        else:
            found[canonicalize_name(match[1])] = match[2]
    return found, strange


def direct(project: dict[str, Any]) -> set[str]:
    """Return every dependency that pyproject.toml names, extras included."""
    table = project["project"]
    lines = [
        *table.get("dependencies", ()),
        *(d for group in table.get("optional-dependencies", {}).values() for d in group),
    ]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def brought_along(names: set[str]) -> set[str]:
    """Return what the installed packages of these names require, recursively."""
    seen: set[str] = set()
    todo = set(names)
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            needs = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        for line in needs:
            requirement = Requirement(line)
            wanted = requirement.marker is None or any(
                requirement.marker.evaluate(
                    {"extra": extra, "python_version": version, "python_full_version": version + ".0"}
                )
                for extra in ("", "toml", "cli", "crosshair", "dateutil")
                for version in ("3.11", "3.12", "3.13", "3.14")
            )
            if wanted:
                todo.add(canonicalize_name(requirement.name))
    return seen - names


def explained(text: str) -> set[str]:
    """Return the packages that CONTRIBUTING's table of dependencies has a row for."""
    section = text.partition("## Dependencies")[2].partition("\n## ")[0]
    return {canonicalize_name(name) for name in re.findall(r"^\| `([A-Za-z0-9._-]+)` \| [^|\s]", section, re.MULTILINE)}


def part(text: str, command: str) -> str:
    """Return the part of a constraints file with what only this command installs, besides what the others need."""
    return text.partition(f"({command}):\n")[2].partition("# Additional")[0]


PARTS = {"docs": "make docs", "frameworks": "scripts/setup.sh frameworks"}
"""Extras that .venv need not have, and the commands in the headings of their parts."""


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _pins() -> dict[str, str]:
    found, strange = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert not strange, f"no exact pins: {strange}"
    return found


def test_every_dependency_is_pinned() -> None:
    assert not direct(_project()) - set(_pins())


def test_every_pin_is_a_dependency_or_comes_with_one() -> None:
    named = direct(_project())
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    elsewhere = {name for command in PARTS.values() for name in pins(part(text, command))[0]}
    stray = set(_pins()) - elsewhere - named - brought_along(named)
    assert not stray, f"nothing needs {sorted(stray)}: take them out of constraints.txt"


@pytest.mark.slow("the packages are installed for the rest of `make test-all` alone")
@pytest.mark.parametrize("extra", ["docs", pytest.param("frameworks", marks=pytest.mark.framework(*FRAMEWORKS))])
def test_the_pins_of_a_part_are_what_its_packages_need(extra: str) -> None:
    pinned, _ = pins(part((ROOT / "constraints.txt").read_text(encoding="utf-8"), PARTS[extra]))
    named = {
        canonicalize_name(Requirement(line).name) for line in _project()["project"]["optional-dependencies"][extra]
    }
    assert pinned and named <= set(pinned)
    for name in named:
        importlib.metadata.version(name)  # PackageNotFoundError: `scripts/setup.sh docs` or `frameworks` installs them
    needed = named | brought_along(named)
    assert not set(pinned) - needed, "nothing needs these: take them out of constraints.txt"


def test_contributing_says_why_each_dependency_is_there() -> None:
    explained_packages = explained((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert not direct(_project()) - explained_packages, "CONTRIBUTING.md has no row for these"
    assert not explained_packages - direct(_project()), "CONTRIBUTING.md explains what is not a dependency"


def test_what_is_installed_here_is_what_is_pinned() -> None:
    wrong = []
    for name, version in _pins().items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another Python version or an extra that is not installed
        if here != version:
            wrong.append(f"{name} {here}, pinned {version}")
    assert not wrong, wrong


OLDER_ON_WINE = {"numpy"}
"""Packages that the Windows test bed has in another version, because Debian 12's Wine cannot load the newer one."""


def hashed(text: str) -> tuple[dict[str, str], list[str]]:
    """Return the pins with hashes by name, and the lines that are not such a pin."""
    found, strange = {}, []
    for line in filter(None, text.splitlines()):
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line)
        if match:
            found[canonicalize_name(match[1])] = match[2]
        elif not line.startswith("#"):
            strange.append(line)
    return found, strange


def test_the_windows_test_bed_has_the_same_versions_each_by_hash() -> None:
    found, strange = hashed((ROOT / "constraints-windows.txt").read_text(encoding="utf-8"))
    assert not strange, f"no pins with a hash: {strange}"
    pinned = _pins()
    others = {name for name, version in found.items() if pinned.get(name) != version}
    assert others == OLDER_ON_WINE | {"colorama"}  # only Windows needs colorama


# Planted faults.


def test_planted_pins_without_a_hash_are_found() -> None:
    digest = "0" * 64
    found, strange = hashed(f"# why\nnumpy==2.1.3 --hash=sha256:{digest}\nrich==15\ncffi>=2 --hash=sha256:{digest}\n")
    assert found == {"numpy": "2.1.3"} and strange == ["rich==15", f"cffi>=2 --hash=sha256:{digest}"]


def test_planted_loose_pins_are_found() -> None:
    found, strange = pins("numpy==2.1.0\n# a comment\nPyYAML>=6\nrich\n")
    assert found == {"numpy": "2.1.0"}
    assert strange == ["PyYAML>=6", "rich"]


def test_the_pins_of_a_command_are_those_of_its_part() -> None:
    text = "numpy==2.1.0\n# Additional for it (make it):\nsix==1\n# Additional for the site (make docs):\nbabel==2.0\n"
    assert pins(part(text, "make docs")) == ({"babel": "2.0"}, [])
    assert pins(part(text, "make it")) == ({"six": "1"}, [])
    assert not part("numpy==2.1.0\n", "make docs")


def test_planted_unpinned_and_stray_packages_are_found() -> None:
    project = {"project": {"dependencies": ["rich>=13"], "optional-dependencies": {"x": ["left-pad"]}}}
    named = direct(project)
    assert named - {"rich"} == {"left-pad"}
    assert "markdown-it-py" in brought_along(named)
    assert "numpy" not in brought_along(named)


def test_planted_unexplained_package_is_found(tmp_path: Path) -> None:
    text = "## Dependencies\n| `rich` | colours |\n| `click` | |\n## Next\n| `numpy` | no |\n"
    assert explained(text) == {"rich"}
