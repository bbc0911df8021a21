"""Which tests need a framework that `make test` does not install: the mark `framework(*packages)`.

How this works. A test has the mark if its module, the test itself, or a function or fixture of the module that it uses
calls `pytest.importorskip` for one of `FRAMEWORKS`; no other list is kept. Tests that find out in another way, such as
for a parameter, carry `@pytest.mark.framework("torch")`, and are skipped where the package is not installed. A test
that is skipped for a missing framework without having the mark fails (tests/conftest.py), so every test that needs one
is among those that `-m framework` selects. `python -m tests.frameworks` prints the files that contain such tests, which
spares the collection of all others; the tests of GPUs are not among them.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

__all__ = ["FRAMEWORKS", "MARK", "Frameworks", "Needs", "files", "missing", "named_in", "needs_of", "param"]

TESTS = Path(__file__).parent
MARK = "framework"
FRAMEWORKS = {
    "torch": "PyTorch",
    "jax": "JAX",
    "pyarrow": "PyArrow",
    "safetensors": "safetensors",
    "pandas": "pandas",
    "polars": "Polars",
}
"""The packages of `scripts/setup.sh frameworks`, and their names in the reasons of skips."""


class Needs:
    """The frameworks that a module of tests needs: as a whole, and for each of its functions."""

    def __init__(self, source: str) -> None:
        tree = ast.parse(source)
        self.module: set[str] = set()
        self.functions: dict[str, set[str]] = {}
        uses: dict[str, set[str]] = {}
        for node in tree.body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.module |= _required(node)
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.functions.setdefault(node.name, set()).update(_required(node))
                called = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
                uses.setdefault(node.name, set()).update(called | {one.arg for one in node.args.args})
        # A function needs what the functions and fixtures that it uses need.
        changed = True
        while changed:
            changed = False
            for name, used in uses.items():
                more = set().union(*(self.functions.get(one, set()) for one in used)) - self.functions[name]
                changed = changed or bool(more)
                self.functions[name] |= more

    def of(self, function: str) -> set[str]:
        """Return the packages that this test needs."""
        return self.module | self.functions.get(function, set())


def _required(node: ast.AST) -> set[str]:
    found = set()
    for call in ast.walk(node):
        if not isinstance(call, ast.Call) or not call.args or not isinstance(call.args[0], ast.Constant):
            continue
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        package = str(call.args[0].value).partition(".")[0]
        if name == "importorskip" and package in FRAMEWORKS:
            found.add(package)
    return found


@functools.cache
def needs_of(path: Path) -> Needs:
    """Return what the tests of this file need."""
    source = path.read_text(encoding="utf-8")
    return Needs(source if "importorskip" in source else "")


def param(package: str, *values: object, id: str | None = None) -> ParameterSet:
    """Return a parameter whose test needs this package: `parametrize("framework", ["numpy", param("torch")])`.

    values: those of the parameter; the package if there are none.
    """
    marks = (pytest.mark.framework(package), pytest.mark.slow(f"imports {FRAMEWORKS[package]}"))
    return pytest.param(*(values or (package,)), marks=marks, id=id)


def missing(packages: set[str]) -> list[str]:
    """Return the names of those of these packages that are not installed."""
    return [words for package, words in FRAMEWORKS.items() if package in packages and not _installed(package)]


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def named_in(reason: str) -> bool:
    """Return whether a test that was skipped for this reason needs a framework that is not installed."""
    return any(re.search(rf"\b{re.escape(words)} is not installed", reason) for words in FRAMEWORKS.values())


def files() -> list[Path]:
    """Return the files with tests that need a framework, and no GPU."""
    marked = re.compile(rf"\bmark\.{MARK}\b|\btests\.frameworks\b|\bfrom tests import .*\bframeworks\b")
    found = []
    for path in sorted(TESTS.rglob("test_*.py")):
        if path.relative_to(TESTS).parts[0] == "gpu":
            continue
        needs = needs_of(path)
        if needs.module or any(needs.functions.values()) or marked.search(path.read_text(encoding="utf-8")):
            found.append(path)
    return found


class Frameworks:
    """The pytest plugin for it."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark the tests, before `-m` selects."""
        for item in items:
            function = getattr(item, "originalname", None) or item.name
            needed = needs_of(item.path).of(function) if item.path.suffix == ".py" else set()
            if needed:
                item.add_marker(pytest.mark.framework(*sorted(needed)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip a test whose mark names a package that is not installed."""
        absent = missing({str(package) for mark in item.iter_markers(MARK) for package in mark.args})
        if absent:
            pytest.skip(f"{absent[0]} is not installed")


if __name__ == "__main__":
    sys.stdout.write("".join(f"{path.relative_to(TESTS.parent)}\n" for path in files()))
