"""What goes wrong with shared arrays, row by row: the error, what it says, what is left (nothing), and what works.

Tables that lie are in test_table_failures.py, files in test_file_failures.py. A row has a call that must be refused,
and its nearest twin, which must succeed. An error says which value is wrong, whose doing it is, and what helps. Memory
of GPUs has its rows in tests/unit, on the scripted driver.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import extmem
from extmem.errors import NameNotFoundError, NameTakenError, UnsupportedError
from extmem.testing import leaks
from extmem.testing.children import Peer

NAME = "failures"
VALUES = np.arange(6, dtype="float32")


@dataclass(frozen=True)
class Row:
    """A call that is refused, and its twin."""

    call: Callable[[], Any]
    error: type[Exception]
    says: tuple[str, ...]
    """Patterns that the message contains: the values, and the remedy."""
    twin: Callable[[], Any]


def check(row: Row) -> None:
    """Check that the row holds: nothing is left after the error, also no name, and the twin succeeds."""
    with leaks.no_leaks():
        with pytest.raises(row.error) as caught:
            row.call()
        text = str(caught.value)
        for pattern in row.says:
            assert re.search(pattern, text), f"{pattern!r} is not in: {text}"
        del caught
    assert [one.name for one in extmem.names(NAME)] == []
    with leaks.no_leaks():
        made = row.twin()
        if hasattr(made, "close"):
            made.close()
        del made


# -- copies -----------------------------------------------------------------------------------------------------------


def _told(x: Any) -> Any:
    memory = extmem.share(x, NAME)
    assert isinstance(memory.copied, str) and "no handle" in memory.copied
    return memory


def _in_place() -> None:
    with extmem.open_device(kind="host") as device, device.allocate(6, "float32") as memory:
        if not extmem.manager.manager().has_broker:
            return  # a section of Windows has one name
        with extmem.share(memory, NAME, copy=False) as shared:
            assert shared.copied is False


COPIES = {
    "ordinary memory of the process, copied": Row(
        lambda: extmem.share(VALUES, NAME, copy=False), UnsupportedError,
        ("ndarray: ordinary memory of a process has no handle", r"open_device\(\)\.allocate", "copy=None"),
        lambda: _told(VALUES),
    ),
    "and memory of extmem, not copied": Row(
        lambda: extmem.share(VALUES[::2], NAME, copy=False), UnsupportedError, ("copy=None",), _in_place
    ),
    "a tree": Row(
        lambda: extmem.share({"w": VALUES}, NAME, copy=False), UnsupportedError,
        (r"at \['w'\]", "a tree becomes one payload", "copy=None"), lambda: _told({"w": VALUES}),
    ),
    "an argument of another type": Row(
        lambda: extmem.share(VALUES, NAME, copy="yes"), TypeError, ("copy is 'yes', a str", "True, False or None"),  # type: ignore[arg-type]
        lambda: extmem.share(VALUES, NAME, copy=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", COPIES)
def test_what_cannot_be_shared_without_a_copy(row: str) -> None:
    check(COPIES[row])


# -- trees and elements -----------------------------------------------------------------------------------------------


def _cycle() -> Any:
    inner: dict[str, Any] = {"w": VALUES}
    inner["more"] = [inner]
    return {"model": inner}


def _deep(levels: int) -> Any:
    tree: Any = VALUES
    for _ in range(levels):
        tree = [tree]
    return tree


def _shared(x: Any) -> Callable[[], Any]:
    return lambda: extmem.share(x, NAME)


TREES = {
    "Python objects as elements": Row(
        _shared({"a": [VALUES, np.array([None, 3])]}), TypeError,
        (r"at \['a'\]\[1\] are Python objects \(object\)", "convert them first"), _shared({"a": [VALUES, VALUES]}),
    ),
    "Python objects in a structure": Row(
        _shared(np.zeros(2, [("a", "i4"), ("b", "O")])), TypeError, ("Python objects", "convert them first"),
        _shared(np.zeros(2, [("a", "i4"), ("b", "f8")])),
    ),
    "a cycle": Row(
        lambda: extmem.share(_cycle(), NAME), ValueError, (r"itself at \['model'\]\['more'\]\[0\]", "share its parts"),
        _shared({"a": (same := [VALUES]), "b": same}),
    ),
    "a key that is a number": Row(
        _shared({"a": {7: VALUES}}), TypeError, (r"the key 7 at \['a'\] is an int", r"use str\(key\)"),
        _shared({"a": {"7": VALUES}}),
    ),
    "the same name twice": Row(
        _shared({"a.b": VALUES, "a": {"b": VALUES}}), ValueError, ("'a.b' is the name of two arrays", "must be unique"),
        _shared({"a.b": VALUES, "a": {"c": VALUES}}),
    ),
    "too many levels": Row(
        lambda: extmem.share(_deep(65), NAME), ValueError, ("more than 64 levels", "flatten"),
        lambda: extmem.share(_deep(64), NAME),
    ),
    "text in place of an array": Row(
        _shared({"a": "weights"}), TypeError, (r"at \['a'\] is 'weights', a str", r"numpy\.asarray"),
        _shared({"a": np.array("weights")}),
    ),
    "a masked array": Row(
        _shared(np.ma.masked_array([1, 2], [True, False])), UnsupportedError, ("masked", r"\.filled\(\)"),
        lambda: extmem.share(np.ma.masked_array([1, 2], [True, False]).filled(0), NAME),
    ),
    "metadata that are not plain": Row(
        lambda: extmem.share({"a": VALUES}, NAME, metadata={"x": [1]}), TypeError,  # type: ignore[dict-item]
        (r"metadata\['x'\] is a list", "share arrays as arrays"),
        lambda: extmem.share({"a": VALUES}, NAME, metadata={"x": 1}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", TREES)
@pytest.mark.parametrize("copy", [None, True])
def test_trees_and_elements_that_cannot_be_shared(row: str, copy: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    original = extmem.share
    monkeypatch.setattr(extmem, "share", lambda x, name, **more: original(x, name, copy=copy, **more))
    check(TREES[row])


# -- tensors ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow("needs PyTorch, which takes seconds to import")
@pytest.mark.parametrize("copy", [None, True, False])
def test_tensors_without_plain_elements(copy: bool | None) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    ones = torch.ones(2, 2)

    class Wrapped(torch.Tensor):  # type: ignore[misc,name-defined,unused-ignore]
        pass

    with warnings.catch_warnings():  # PyTorch warns of some kinds of tensors
        warnings.simplefilter("ignore")
        nested = torch.nested.nested_tensor([ones, ones[:1]])
        quantized = torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8)
    rows = {
        "sparse": (ones.to_sparse(), r"tensor\.to_dense\(\)"),
        "nested": (nested, r"tensor\.unbind\(\)"),
        "quantized": (quantized, r"tensor\.dequantize\(\)"),
        "meta": (torch.empty(2, device="meta"), "a tensor with elements"),
        "conjugate": (torch.ones(2, dtype=torch.complex64).conj(), r"tensor\.resolve_conj\(\)"),
        "negative": (torch.ones(2, dtype=torch.complex64).conj().imag, r"tensor\.resolve_neg\(\)"),
        "Wrapped": (ones.as_subclass(Wrapped), "the plain tensors"),
    }
    for what, (tensor, remedy) in rows.items():
        with pytest.raises(UnsupportedError, match=remedy) as caught:
            extmem.share({"layer": {"w": tensor}}, NAME, copy=copy)
        if copy is not False or what == "Wrapped":
            assert "at ['layer']['w']" in str(caught.value) and what in str(caught.value)
        assert extmem.names(NAME) == []
    with extmem.share({"layer": {"w": ones}}, NAME) as memory:
        assert memory["layer.w"].nbytes == 16


@pytest.mark.slow("needs PyTorch, which takes seconds to import")
def test_set_and_resize_on_what_was_shared() -> None:
    """They give a tensor other memory, or are refused; what was shared stays as it is."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    with extmem.share({"w": VALUES}, NAME, access=extmem.Access.READ_WRITE) as memory:
        tensor = memory["w"].torch()
        with pytest.raises(RuntimeError, match="not resizable"):
            tensor.resize_(1000)
        tensor.resize_(3)
        assert tensor.tolist() == [0.0, 1.0, 2.0] and memory["w"].read().tolist() == VALUES.tolist()
        tensor.set_(torch.zeros(6))
        tensor.fill_(9)
        assert memory["w"].read().tolist() == VALUES.tolist()
        with extmem.share(tensor) as other:
            assert isinstance(other.copied, str)
        del tensor
    with extmem.share({"w": VALUES}, NAME):
        with extmem.open(NAME) as opened:
            for change in (lambda t: t.resize_(1000), lambda t: t.set_(torch.zeros(6)), lambda t: t.fill_(1)):
                guarded = opened["w"].torch()
                with contextlib.suppress(RuntimeError, PermissionError):
                    change(guarded)
                del guarded
            assert opened["w"].read().tolist() == VALUES.tolist()


# -- names ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _held(name: str) -> Iterator[None]:
    with extmem.share(VALUES, name):
        yield


def _taken(**more: Any) -> Any:
    with _held("taken failures"):
        return extmem.share(VALUES, "taken failures", **more)


NAMES = {
    "a name that is taken": Row(
        lambda: _taken(), NameTakenError, ("taken failures", "Choose another name"), lambda: extmem.share(VALUES, NAME)
    ),
    "a name of another machine": Row(
        lambda: extmem.share(VALUES, f"{NAME}@host"), extmem.NameInvalidError, ("failures@host", "another machine"),
        lambda: extmem.share(VALUES, f"{NAME} at host"),
    ),
    "a name that does not come": Row(
        lambda: extmem.open(NAME, timeout=0.001), extmem.NameTimeoutError, ("failures", r"0\.001 s", "start the proc"),
        lambda: _waited(),
    ),
    "a name that nobody has": Row(
        lambda: extmem.open(NAME), NameNotFoundError, ("failures",), lambda: _waited()
    ),
    "no time": Row(
        lambda: extmem.open(NAME, timeout=-1), ValueError, ("timeout is -1", "0 or more seconds"), lambda: _waited()
    ),
}  # fmt: skip


def _waited() -> Any:
    with _held(NAME):
        return extmem.open(NAME, timeout=10)


@pytest.mark.parametrize("row", NAMES)
def test_names_that_are_refused(row: str) -> None:
    check(NAMES[row])


@pytest.mark.linux_only("the Windows kernel's names belong to one object")
def test_another_process_does_not_replace_what_its_publisher_still_has(peer: Peer) -> None:
    peer(f"import extmem, os; memory = extmem.share(b'theirs', {NAME!r})")
    with leaks.no_leaks():
        with pytest.raises(NameTakenError) as caught:
            extmem.share(b"mine", NAME, replace=True)
        assert str(peer.pid) in str(caught.value), caught.value
        del caught
    with extmem.open(NAME) as opened:
        assert opened.tobytes() == b"theirs"
    peer("memory.close()")
    with extmem.share(b"mine", NAME, replace=True), extmem.open(NAME) as opened:
        assert opened.tobytes() == b"mine"


# -- fork -------------------------------------------------------------------------------------------------------------

FORK = """
import os, sys
import extmem, numpy
from extmem.core.name_waits import import_named
memory = extmem.share({'w': numpy.zeros(4)}, 'failures fork', access=extmem.Access.READ_WRITE)
part, chosen = memory['w'], memory.select('*')
update = memory.update()
update.__enter__()
stable = None
USES = {
    'an array': lambda: memory['w'].numpy(),
    'all arrays': lambda: memory.numpy(),
    'a part': lambda: part.read(),
    'a part of a part': lambda: part[1:].numpy(),
    'a selection': lambda: chosen.numpy(),
    'a name for a part': lambda: part.share('failures fork part'),
    'pickles': lambda: __import__('pickle').dumps(part),
    'share again': lambda: extmem.share(memory, 'failures fork other', copy=False),
    'the generation': lambda: memory.generation,
    'wait': lambda: memory.wait(timeout=0),
    'stable': lambda: memory.stable(),
    'another update': lambda: memory.update(),
    'torn': lambda: memory.torn,
    'superseded': lambda: memory.superseded,
}

def forked():
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        found = []
        for what, use in USES.items():
            try:
                use()
            except extmem.HandleStateError as error:
                if 'fork' not in str(error):
                    found.append(f'{what}: {error}')
            except BaseException as error:
                found.append(f'{what}: {type(error).__name__} {error}')
            else:
                found.append(f'{what}: no error')
        update.__exit__(None, None, None)
        try:  # a fork may begin anew
            with extmem.open('failures fork') as own:
                found.append(own.read_only, own.generation) if own.generation != 1 else None
        except BaseException as error:
            found.append(f'its own: {type(error).__name__} {error}')
        os.write(writing, '; '.join(map(str, found)).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, 'rb') as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    return said
"""


@pytest.mark.linux_only("Windows does not fork")
def test_a_forked_child_uses_nothing_of_its_parents_arrays_and_updates(peer: Peer) -> None:
    peer(FORK)
    assert peer("forked()") == ""
    assert peer("memory.generation") == 1, "the child has ended the update of its parent"
    peer("update.__exit__(None, None, None)")
    assert peer("memory.generation, memory.torn") == (2, False)
    peer("memory.close()")
