"""Log records contain text: a handler may keep a record, and with it an exception, its frames and their objects."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.meta.tools import SOURCE, python_files

LEVELS = {"debug", "info", "warning", "error", "critical", "log"}


def _is_log_call(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
        return False
    owner = node.func.value
    name = owner.id if isinstance(owner, ast.Name) else owner.func if isinstance(owner, ast.Call) else ""
    return name == "_log" or (isinstance(name, ast.Attribute) and name.attr == "getLogger")


def kept_objects(source: str) -> list[str]:
    """Return the arguments of log calls that are `self` or the name of an exception that the module catches.

    So is `exc_info`, by which a record has the traceback.
    """
    tree = ast.parse(source)
    kept = {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name} | {"self"}
    return [
        ast.unparse(argument)
        for call in ast.walk(tree)
        if _is_log_call(call) and isinstance(call, ast.Call)
        for argument in [*call.args, *(word for word in call.keywords if word.arg == "exc_info")]
        if isinstance(argument, ast.keyword) or (isinstance(argument, ast.Name) and argument.id in kept)
    ]


def test_no_log_record_keeps_an_object() -> None:
    found = {
        path.relative_to(SOURCE).as_posix(): kept
        for path in python_files(SOURCE)
        if (kept := kept_objects(Path(path).read_text(encoding="utf-8")))
    }
    assert not found, "give `str(error)` and `repr(self)` to log calls"


def test_planted_objects_are_found() -> None:
    planted = """
try:
    pass
except OSError as error:
    _log.warning("%s failed: %s", str(self), error)
    logging.getLogger("a").error("%r", self, exc_info=True)
    _log.warning("%s", str(error))
    print(error)
"""
    assert kept_objects(planted) == ["error", "self", "exc_info=True"]
