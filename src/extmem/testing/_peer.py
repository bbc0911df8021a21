"""The process of a `children.Peer`: `python -m extmem.testing._peer [FD]`; on Windows the handle comes by stdin."""

from __future__ import annotations

import ast
import traceback
from typing import Any

from extmem.testing._system import Connection, receive_pipe


def run(source: str, namespace: dict[str, Any]) -> Any:
    """Execute the source and return the value of its last expression, or None where it ends with a statement."""
    tree = ast.parse(source)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        tree.body.pop()
        exec(compile(tree, "<peer>", "exec"), namespace)
        return eval(compile(ast.Expression(last.value), "<peer>", "eval"), namespace)
    exec(compile(tree, "<peer>", "exec"), namespace)
    return None


def describe(error: BaseException) -> dict[str, Any]:
    """Return the facts of an exception that `RemoteError` is made of."""
    return {
        "kinds": [kind.__name__ for kind in type(error).__mro__],
        "message": str(error),
        "vuids": [violation.vuid for violation in getattr(error, "violations", ())],
        "traceback": "".join(traceback.format_exception(error)),
        **{name: getattr(error, name, None) for name in ("ntstatus", "winerror", "result", "errno")},
    }


def main() -> None:
    """Run what the other end sends, until it closes the connection."""
    connection: Connection[Any, Any] = Connection(receive_pipe())
    namespace: dict[str, Any] = {"__name__": "__peer__"}
    run("import os, sys, gc\nimport extmem\nfrom extmem import vk", namespace)
    try:
        raise LookupError
    except LookupError as error:
        describe(error)  # imports now what formatting imports late: later there may be no fd left to import it with
    while True:
        try:
            source, variables = connection.recv()
        except EOFError:
            return
        except Exception as error:  # noqa: BLE001  # unpickling may raise anything; the sender gets it
            connection.send((False, describe(error)))
            continue
        namespace.update(variables)
        try:
            answer = (True, run(source, namespace))
        except BaseException as error:  # noqa: BLE001  # the other end gets it as a RemoteError
            answer = (False, describe(error))
            # The traceback's frames would keep the failed call's objects alive.
            error.__traceback__ = None
            del error
        try:
            connection.send(answer)
        except BrokenPipeError:
            return
        except Exception as error:  # noqa: BLE001  # an answer that cannot be pickled
            connection.send((False, describe(error)))
        del answer, variables


if __name__ == "__main__":
    main()
