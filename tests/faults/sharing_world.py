"""Operations that share arrays, wait for names, keep, replace and change, for the tests that let their calls fail."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import extmem
from extmem.api import Device

__all__ = ["OF_THE_BROKER", "OPERATIONS", "SharingWorld"]

_numbers = itertools.count(1)
_VALUES = np.arange(300, dtype="int32")
_TREE = {"w": _VALUES, "b": {"c": np.full(5, 7.5)}}


class SharingWorld:
    """What the caller holds before the operation. All of it must be usable after every failure."""

    def __init__(self, device: Device, stack: contextlib.ExitStack, folder: Path) -> None:
        self.device = device
        self.name = f"sharing faults {os.getpid()} {next(_numbers)}"
        self.memory: Any = stack.enter_context(extmem.share(_TREE, self.name, access=extmem.Access.READ_WRITE))
        self.plain = stack.enter_context(device.allocate(64, "int32", name=f"{self.name} plain"))
        self.file = folder / "arrays.safetensors"
        extmem.save_safetensors(self.memory, self.file)
        stack.callback(self.forget)

    def fresh(self) -> str:
        """Return a name that no earlier run of the operation had."""
        return f"{self.name} {next(_numbers)}"

    def forget(self) -> None:
        """End the keeping of what operations that failed have left to the broker."""
        for one in extmem.names(self.name):
            if one.kept:
                extmem.forget(one.name)

    def check(self) -> None:
        """Check that all of it is open, intact and usable, and that no operation has left a name."""
        self.forget()
        assert sorted(one.name for one in extmem.names(self.name)) == [self.name, f"{self.name} plain"]
        with extmem.open(self.name) as opened:
            assert opened["w"].read().tolist() == _VALUES.tolist()
            assert opened["b.c"].read().tolist() == [7.5] * 5
        assert os.listdir(self.file.parent) == [self.file.name]
        with extmem.load_safetensors(self.file) as loaded:
            assert loaded["w"].read()[-1] == 299
        if not extmem.manager.manager().has_broker:
            return
        for memory in (self.memory, self.plain):  # nobody has the lease, and torn memory is healed
            with memory.update(timeout=10):
                pass
            assert not memory.torn and memory.generation % 2 == 0


def _listed(world: SharingWorld) -> None:
    assert [one.name for one in extmem.names(f"{world.name} plain")] == [f"{world.name} plain"]


def _open_async(world: SharingWorld) -> None:
    name = world.fresh()

    async def main() -> None:
        opening = asyncio.create_task(extmem.open_async(name, timeout=20))
        await asyncio.sleep(0)
        with extmem.share(_VALUES, name):
            (await opening).close()

    asyncio.run(main())


def _time_out(world: SharingWorld) -> None:
    with contextlib.suppress(extmem.NameTimeoutError):
        extmem.open(world.fresh(), timeout=0.001).close()


def _kept(world: SharingWorld) -> None:
    name = world.fresh()
    try:
        extmem.share(_VALUES, name, keep=True).close()
        extmem.open(name).close()
    finally:
        world.forget()


def _replaced(world: SharingWorld) -> None:
    name = world.fresh()
    with extmem.share(_VALUES, name) as first, extmem.share(_TREE, name, replace=True), extmem.open(name):
        assert first.superseded


def _used(memory: Any) -> None:
    with memory:
        views = memory.numpy()
        assert views["w"][5] == 5 and memory["b.c"].read()[0] == 7.5
        del views


def _pickled(memory: Any, use: Callable[[Any], object]) -> None:
    data = pickle.dumps(memory)
    try:
        use(pickle.loads(data))  # the use raises the error for which it was not received
    except (extmem.ExtmemError, OSError):
        if not extmem.manager.manager().has_broker:
            # The sender itself keeps what was not claimed, because it can still be claimed.
            with contextlib.suppress(extmem.InvalidHandleError):
                pickle.loads(data).close()
        raise


def _part_used(part: Any) -> None:
    with contextlib.closing(part):
        assert part.read()[0] == 1


def _updated(world: SharingWorld) -> None:
    with world.memory.update(["w"], timeout=20):
        world.memory["w"].numpy()[:] = _VALUES


def _read_stable(world: SharingWorld) -> None:
    with extmem.open(world.name) as opened:
        with contextlib.suppress(extmem.PeerGoneError), opened.stable(timeout=20):
            opened["w"].read()


def _waited(world: SharingWorld) -> None:
    with extmem.open(world.name) as opened:
        with contextlib.suppress(extmem.WaitTimeoutError, extmem.PeerGoneError):
            opened.wait(timeout=0)


def _part_shared(world: SharingWorld) -> None:
    name = world.fresh()
    with world.memory["w"][2:5].share(name), extmem.open(name) as opened:
        assert opened.read().tolist() == [2, 3, 4]


def _saved(world: SharingWorld) -> None:
    path = world.file.with_name("again")
    try:
        extmem.save_safetensors(world.memory, path)
    finally:
        path.unlink(missing_ok=True)


OPERATIONS: dict[str, Callable[[SharingWorld], object]] = {
    "share an array": lambda w: extmem.share(_VALUES, w.fresh()).close(),
    "share a tree": lambda w: extmem.share(_TREE, w.fresh(), metadata={"a": 1}).close(),
    "open a tree": lambda w: _used(extmem.open(w.name)),
    "open a copy": lambda w: extmem.open(f"{w.name} plain", kind="host", copy=True).close(),
    "share a part": _part_shared,
    "pickle a part": lambda w: _pickled(w.memory["w"][1:], _part_used),
    "pickle a tree": lambda w: _pickled(w.memory, _used),
    "wait for a name": _open_async,
    "wait in vain": _time_out,
    "list names": _listed,
    "keep and forget": _kept,
    "replace": _replaced,
    "update": _updated,
    "read what is stable": _read_stable,
    "wait for an update": _waited,
    "load a file": lambda w: extmem.load_safetensors(w.file, w.fresh()).close(),
    "load a file without a name": lambda w: extmem.load_safetensors(w.file).close(),
    "save a file": _saved,
}
OF_THE_BROKER = {"share a part", "keep and forget", "replace", "update", "read what is stable", "wait for an update"}
"""Operations that Windows refuses with a reason."""
