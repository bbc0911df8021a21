"""C memory is kept until the call has returned: `to_c(…).cdata` in a call frees what it points to before."""

from __future__ import annotations

import ast

from tests.meta.tools import python_files


def dangling(tree: ast.AST) -> list[int]:
    """Return the lines that take the pointer of a `to_c(…)` without keeping the result."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr == "cdata"
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "to_c"
    ]


def test_nobody_lets_go_of_c_memory_too_early() -> None:
    found = {
        str(path): lines for path in python_files() if (lines := dangling(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert not found


def test_planted_dangling_pointer_is_found() -> None:
    assert dangling(ast.parse("vkCreateBuffer(device, to_c(info).cdata, out)")) == [1]
    assert not dangling(ast.parse("asked = to_c(info)\nvkCreateBuffer(device, asked.cdata, out)"))
