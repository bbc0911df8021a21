"""Operations of `tests.operations` that share arrays and parts of memory, wait for names, keep, replace and change."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import extmem
from extmem.api import DeviceMemory
from extmem.api.arrays import NamedArrays
from extmem.api.memory_kinds import memory_of
from extmem.api.slices import MemorySlice
from extmem.core import sharing_arrays
from extmem.errors import NameNotFoundError, PeerGoneError, UnsupportedError, WaitTimeoutError
from extmem.owning import Uses
from extmem.sharing import table
from extmem.sharing.kinds import PageRole
from extmem.sharing.table import Spec, Table
from tests.tagged_payloads import SIZE, World

__all__ = [
    "CALLS",
    "CHANGES",
    "OF_DEVICES",
    "OF_MEMORY",
    "OF_NAMED_ARRAYS",
    "OF_PARTS",
    "call_of",
    "named_arrays",
    "part",
]

_Call: TypeAlias = Callable[[Any], Any]
_names = count(1)
_NAMES = ("a", "b.c")


def _name() -> str:
    return f"sharing {os.getpid()} {next(_names)}"


# Objects.


def part(world: World) -> tuple[MemorySlice, int, list[Any]]:
    """Make a part of memory. Return it, its tag, and what it needs."""
    tag = world.tag()
    memory = world.memory(tag)
    return memory[1:], tag, [memory]


def named_arrays(world: World) -> tuple[NamedArrays, int]:
    """Make memory of two named arrays on any device, without padding. Return it and its tag."""
    device, tag = world.device, world.tag()
    entries, size = table.place([Spec(name, "uint8", (SIZE,)) for name in _NAMES])
    pages = {PageRole.TABLE: table.encode(Table(entries))}
    terms = sharing_arrays.how(None, extmem.Access.READ_WRITE)
    with Uses(device) as uses:
        made = sharing_arrays.allocate(device, uses, size, terms, pages=pages, stamps=len(entries))
        memory = memory_of(*made.memory)
        try:
            memory.fill(tag)
            sharing_arrays.publish(made)
        except BaseException:
            memory.close()
            raise
    assert isinstance(memory, NamedArrays)
    return memory, tag


def call_of(kind: type, name: str, *tables: Mapping[tuple[type, str], _Call]) -> _Call | None:
    """Return how a method is called that is in one of the tables, also for a class that this one is derived from."""
    found = (table[base, name] for base in kind.__mro__ for table in tables if (base, name) in table)
    return next(found, None)


# Operations of memory objects.


def _shared(scene: Any, thing: Any) -> Any:
    """Share by a name, open it, and return the memory that was opened, whose bytes are checked."""
    name = _name()
    with thing.share(name):
        return extmem.open(name)


OF_MEMORY: tuple[tuple[str, _Call], ...] = (
    ("__array_interface__", lambda s: getattr(s.thing, "__array_interface__", None) and None),
    ("a part", lambda s: s.thing[1:].read()),
    ("a part, pickled", lambda s: pickle.loads(pickle.dumps(s.thing[1:])).close()),
    ("a part, shared", lambda s: s.thing[1:].share()),
)
"""Of a memory object, in a scene."""
if sys.version_info >= (3, 12):
    OF_MEMORY += (("memoryview", lambda s: memoryview(s.thing)),)
OF_PARTS: tuple[tuple[str, _Call], ...] = (
    ("np.asarray", lambda s: np.asarray(s.thing)),
    ("np.from_dlpack", lambda s: np.from_dlpack(s.thing, device="cpu")),
    ("a part of it", lambda s: s.thing[1:3].read()),
    ("length", lambda s: len(s.thing)),
    ("pickle", lambda s: pickle.loads(pickle.dumps(s.thing)).memory),
    ("repr", lambda s: repr(s.thing)),
    ("share, named", lambda s: _shared(s, s.thing)),
    ("extmem.share", lambda s: extmem.share(s.thing)),
)
"""Of a part, in a scene."""
OF_NAMED_ARRAYS: tuple[tuple[str, _Call], ...] = (
    ("an array", lambda s: s.thing["a"].numpy()),
    ("an array, read", lambda s: s.thing["b.c"].read()),
    ("an array, pickled", lambda s: pickle.loads(pickle.dumps(s.thing["a"])).memory),
    ("an array, shared", lambda s: _shared(s, s.thing["b.c"])),
    ("a private array", lambda s: s.thing.numpy(private=True)["a"]),
    ("a selection", lambda s: s.thing.select("b.*").numpy()["b.c"]),
    ("the tree, NumPy", lambda s: s.thing.tree("numpy")["a"]),
    ("names", lambda s: [len(s.thing), list(s.thing), "a" in s.thing]),
    ("generation of an array", lambda s: s.thing["a"].generation),
    ("update of an array", lambda s: _updated(s, ["b.c"])),
    ("saved and loaded", lambda s: _saved(s)),
    ("pickle", lambda s: pickle.loads(pickle.dumps(s.thing))),
    ("with", lambda s: s.thing.__enter__() and None),
    ("repr", lambda s: repr(s.thing)),
)
"""Of memory of named arrays, in a scene."""


def _saved(scene: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.safetensors"
        extmem.save_safetensors(scene.thing, path)
        with extmem.load_safetensors(path, _name()) as memory:
            return memory["a"].read()


# Changes.


def _updated(scene: Any, names: list[str] | None = None) -> None:
    with scene.thing.update(names, timeout=10):
        scene.thing.fill(scene.tag)


def _stable(scene: Any) -> Any:
    """Read what no update changes meanwhile. An update that an exception has left is an error until the next one."""
    with contextlib.suppress(PeerGoneError), scene.thing.stable(timeout=10):
        return scene.thing.read()


def _stable_bytes(scene: Any) -> Any:
    with contextlib.suppress(PeerGoneError), scene.thing.stable(timeout=10):
        return scene.thing.read_bytes()


def _waited(scene: Any) -> None:
    with contextlib.suppress(PeerGoneError, WaitTimeoutError):
        scene.thing.wait(timeout=0)


def _awaited(scene: Any) -> None:
    """Start a wait for a generation that is reached: it ends without an event loop."""
    waiting = scene.thing.wait_async(after=-2)
    try:
        waiting.send(None)
    except (StopIteration, PeerGoneError):
        pass
    finally:
        waiting.close()


def _frozen(scene: Any) -> Any:
    """Freeze memory of its own, which others do not write to; the scene's memory only if it is closed."""
    if scene.thing.closed:
        scene.thing.freeze()
    with extmem.share(bytes([scene.tag]) * SIZE) as memory:
        with contextlib.suppress(UnsupportedError):  # Windows
            memory.freeze()
        return memory.read()


CHANGES: dict[tuple[type, str], _Call] = {
    (DeviceMemory, "update"): _updated,
    (DeviceMemory, "stable"): _stable,
    (DeviceMemory, "wait"): _waited,
    (DeviceMemory, "wait_async"): _awaited,
    (DeviceMemory, "freeze"): _frozen,
}
"""Methods of memory that change it in place, and tell of changes."""

CALLS: dict[tuple[type, str], _Call] = {
    **CHANGES,
    (NamedArrays, "stable"): _stable_bytes,
    (NamedArrays, "numpy"): lambda s: s.thing.numpy()["a"],
    (NamedArrays, "torch"): lambda s: s.thing.torch()["a"] is None,
    (NamedArrays, "jax"): lambda s: s.thing.jax()["a"] is None,
    (NamedArrays, "cupy"): lambda s: s.thing.cupy()["a"] is None,
    (NamedArrays, "get"): lambda s: s.thing.get("a").read(),
    (NamedArrays, "items"): lambda s: s.thing.items()[1][1].read(),
    (NamedArrays, "values"): lambda s: s.thing.values()[0].read(),
    (NamedArrays, "read"): lambda s: s.thing.read_bytes(),
    (NamedArrays, "arrow"): lambda s: s.thing.metadata.get("arrow"),
    (MemorySlice, "memory"): lambda s: s.thing.memory.size,
}
"""Methods with arguments, or whose result is not bytes of the payload."""


# Operations of devices.


def _values(scene: Any) -> Any:
    return np.full(SIZE, scene.tag, "uint8")


def _tree(scene: Any) -> Any:
    with extmem.share({"a": _values(scene)}) as memory:
        return memory["a"].read()


@contextlib.contextmanager
def _forgotten(name: str) -> Iterator[None]:
    """Nothing of this name is kept after the block, whatever ends it."""
    try:
        yield
    finally:
        with contextlib.suppress(NameNotFoundError):
            extmem.forget(name)


def _kept(scene: Any) -> Any:
    name = _name()
    with _forgotten(name):
        extmem.share(_values(scene), name, keep=True).close()
        return extmem.open(name)


def _replaced(scene: Any) -> Any:
    name = _name()
    with extmem.share(b"another", name), extmem.share(_values(scene), name, replace=True):
        return extmem.open(name)


def _waited_for(scene: Any) -> Any:
    name = _name()
    with contextlib.suppress(NameNotFoundError):
        extmem.open(name, timeout=0.001).close()
    with extmem.share(_values(scene), name):
        return extmem.open(name, timeout=10)


def _awaited(scene: Any) -> Any:
    name = _name()

    async def main() -> Any:
        opening = asyncio.create_task(extmem.open_async(name, timeout=10))
        await asyncio.sleep(0)
        with extmem.share(_values(scene), name):
            return await opening

    return asyncio.run(main())


def _copied(scene: Any) -> Any:
    name = _name()
    with extmem.share(_values(scene), name):
        return extmem.open(name, kind="host", copy=True)


def _listed(scene: Any) -> None:
    name = _name()
    with extmem.share(_values(scene), name):
        assert [one.name for one in extmem.names(name)] == [name]


OF_DEVICES: tuple[tuple[str, _Call], ...] = (
    ("extmem.share", lambda s: extmem.share(bytes([s.tag]) * SIZE).close()),
    ("extmem.share of a tree", _tree),
    ("extmem.share, kept and forgotten", _kept),
    ("extmem.share, replaced", _replaced),
    ("extmem.open, waited for", _waited_for),
    ("extmem.open_async", _awaited),
    ("extmem.open, copied", _copied),
    ("extmem.names", _listed),
)
"""Beside a device that another thread may be closing."""
