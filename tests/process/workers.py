"""The functions that children of `multiprocessing` run: they import this module by name."""

from __future__ import annotations

import os
import pickle
from typing import Any

import extmem
from extmem import vk
from tests.behaviours.steps import get, put


def look(thing: Any, answers: Any) -> None:
    """Put a description of what arrived into a queue."""
    answers.put(describe(thing))
    close(thing)


def describe(thing: Any) -> tuple[Any, ...]:
    """Return a memory object or handle as plain values."""
    if isinstance(thing, extmem.DeviceMemory):
        return ("memory", get(thing), thing.read_only, thing.name is not None)
    if isinstance(thing, extmem.NtHandle):
        with extmem.open(thing) as memory:
            return ("nt", get(memory), int(thing.access), thing.info.inherit)
    if isinstance(thing, extmem.KmtHandle):
        with extmem.open(thing) as memory:
            return ("kmt", get(memory), int(thing))
    size = os.fstat(int(thing)).st_size
    return ("fd", os.pread(int(thing), 4, 0), size > 0, os.get_inheritable(int(thing)))


def close(thing: Any) -> None:
    """Close it in the child."""
    thing.close()


def describe_and_close(thing: Any) -> tuple[Any, ...]:
    """Return a description, for pools, which return values."""
    found = describe(thing)
    close(thing)
    return found


def write(memory: extmem.DeviceMemory, data: bytes) -> int:
    """Write into memory that arrived."""
    with memory:
        put(memory, data)
    return os.getpid()


def echo(connection: Any) -> None:
    """Receive over a pipe, describe it, and send it back."""
    thing = connection.recv()
    connection.send(describe(thing))
    connection.send(thing)
    connection.recv()  # until the other end has it
    close(thing)


def try_to_write(memory: extmem.DeviceMemory) -> str:
    """Return the class of the error of a write."""
    with memory:
        try:
            memory.map()[0] = 1
        except TypeError as error:
            return type(error).__name__
    return "written"


def never(thing: Any) -> None:
    """Reached only if the child was not killed while it unpickled."""


def make(text: bytes) -> extmem.DeviceMemory:
    """Return memory of this process as a result; the process may end before the result is read."""
    memory = extmem.open_device(kind="host").allocate(len(text), name=f"made by {os.getpid()}")
    put(memory, text)
    return memory


def make_handle(text: bytes) -> extmem.NtHandle:
    """The same as `make`, by NT handle."""
    memory = make(text)
    return extmem.open_handle(str(memory.name))


def make_fd(text: bytes) -> extmem.FdHandle:
    """The same as `make`, by fd."""
    device = extmem.open_device(kind="host")
    memory = device.allocate(len(text))
    put(memory, text)
    handle = memory.export_handle(extmem.vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD)
    assert isinstance(handle, extmem.FdHandle)
    return handle


def put_and_end(queue: Any, text: bytes) -> None:
    """Put a result into a queue, and end."""
    queue.put(make(text))


class AlreadyClaimed:
    """An object that pickles as a reference that cannot be claimed any more, like one that arrives too late."""

    def __init__(self, thing: Any) -> None:
        self.text = pickle.dumps(thing)
        pickle.loads(self.text).close()

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self.text,)


def make_too_late(kind: str) -> AlreadyClaimed:
    """Return a result that cannot be received."""
    return AlreadyClaimed({"memory": make, "nt": make_handle, "fd": make_fd}[kind](b"late"))


def open_missing(name: str) -> extmem.DeviceMemory:
    """Fail: the name does not exist."""
    return extmem.open(name)


def break_a_rule(size: int) -> extmem.DeviceMemory:
    """Fail: the memory type does not exist."""
    with extmem.open_device(kind="host") as device:
        return device.allocate_memory(vk.MemoryAllocateInfo(size, 1000))


def values(thing: Any, answers: Any) -> None:
    """Answer with the elements of a part, or of the array "w" of named arrays, and close it."""
    part = thing["w"] if hasattr(thing, "keys") else thing
    answers.put(part.read().tolist())
    thing.close()
