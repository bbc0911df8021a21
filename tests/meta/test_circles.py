"""No modules of one layer import each other in a circle, imports inside functions and for type checkers included.

How this works. The graph has an edge from a module to each that it imports, wherever the import stands. Circles are the
strongly connected components with more than one module (Tarjan's algorithm). `from package import name` leads to the
module `package.name` where there is one, else to the package itself.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping, Set

from tests.meta.test_layers import layer_of
from tests.meta.tools import module_name, python_files

FREE = {"testing"}
"""Layers whose modules may be in circles."""


def imported(tree: ast.AST, modules: Set[str]) -> set[str]:
    """Which of these modules the tree imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules else node.module)
    return found & modules


def circles(graph: Mapping[str, Set[str]]) -> list[list[str]]:
    """The sets of modules that reach each other, each sorted."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in graph[module]:
            if other not in order:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == order[module]:
            component = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(component) > 1:
                found.append(sorted(component))

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return found


def inside_layers(trees: Mapping[str, ast.AST]) -> dict[str, set[str]]:
    """The imports of each module of this library from its own layer."""
    names = set(trees)
    return {
        module: {other for other in imported(tree, names) if layer_of(other) == layer_of(module)} - {module}
        for module, tree in trees.items()
        if layer_of(module) not in FREE
    }


def test_no_layer_has_a_circle() -> None:
    trees = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in python_files()}
    told = ["\n  ".join(["a circle of imports:", *circle]) for circle in circles(inside_layers(trees))]
    assert not told, "\n".join(told)


def _planted(**sources: str) -> dict[str, ast.AST]:
    return {f"extmem.core.{name}": ast.parse(textwrap.dedent(source)) for name, source in sources.items()}


def test_modules_in_one_direction_are_no_circle() -> None:
    trees = _planted(a="from extmem.core import b", b="import extmem.core.c", c="import os")
    assert circles(inside_layers(trees)) == []


def test_planted_circles_are_seen() -> None:
    for back in (
        "from extmem.core import a",
        "import extmem.core.a",
        "from extmem.core.a import thing",
        "def f():\n    from extmem.core import a",
        "if TYPE_CHECKING:\n    from extmem.core.a import A",
    ):
        trees = _planted(a="from extmem.core import b", b="from extmem.core.c import x", c=back)
        assert circles(inside_layers(trees)) == [["extmem.core.a", "extmem.core.b", "extmem.core.c"]], back


def test_two_circles_are_both_seen() -> None:
    trees = _planted(
        a="from extmem.core import b",
        b="from extmem.core import a, c",
        c="from extmem.core import d",
        d="from extmem.core import c",
    )
    assert circles(inside_layers(trees)) == [
        ["extmem.core.c", "extmem.core.d"],
        ["extmem.core.a", "extmem.core.b"],
    ]
