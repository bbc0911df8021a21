"""Late imports are in blocks during which no other thread forks, because a child could not make them otherwise."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.meta.tools import SOURCE, module_name, python_files

BLOCKS = {"late_imports", "no_fork", "_no_fork"}
EXEMPT = {
    "extmem.optional": "its function `importing` has the block",
    "extmem.interop.device_array": "imports in a function that `optional.importing` calls",
    "extmem.devices.vulkan.file_kind": "imports when the module is imported",
}
WITHOUT_FORKS = ("extmem.cli", "extmem.testing", "extmem.broker")
"""Programs and tests, whose child processes are started by exec."""


def late_imports_without_block(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of imports in functions that are in no such block."""
    pending = [(tree, False, False)]
    while pending:
        node, late, safe = pending.pop()
        late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        safe = safe or (
            isinstance(node, ast.With)
            and any(
                isinstance(item.context_expr, ast.Call) and _name(item.context_expr) in BLOCKS for item in node.items
            )
        )
        called = isinstance(node, ast.Call) and _name(node) == "import_module"
        if late and not safe and (called or isinstance(node, ast.Import | ast.ImportFrom)):
            yield node.lineno  # type: ignore[attr-defined]  # these nodes have one
        pending += [(child, late, safe) for child in ast.iter_child_nodes(node)]


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def test_late_imports_delay_forks() -> None:
    wrong = [
        f"{path}:{line}"
        for path in python_files(SOURCE)
        if (module := module_name(path)) not in EXEMPT and not module.startswith(WITHOUT_FORKS)
        for line in late_imports_without_block(ast.parse(Path(path).read_text(encoding="utf-8")))
    ]
    assert not wrong, f"put these imports into a block `with late_imports():` or `with no_fork():`: {wrong}"


def test_an_import_without_block_is_detected() -> None:
    code = """
import a
def f():
    with no_fork():
        import b
    import c
    with open("x"):
        importlib.import_module("d")
"""
    assert sorted(late_imports_without_block(ast.parse(code))) == [6, 8]
