"""What children of `multiprocessing` run: they import this module by name."""

from __future__ import annotations

import os
from typing import Any

import extmem
from tests.behaviours.steps import get, put


def look(thing: Any, answers: Any) -> None:
    """Say what arrived."""
    answers.put(describe(thing))
    close(thing)


def describe(thing: Any) -> tuple[Any, ...]:
    """What a memory object or handle is, as plain values."""
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
    """Give it back here."""
    thing.close()


def describe_and_close(thing: Any) -> tuple[Any, ...]:
    """For pools, which return values."""
    found = describe(thing)
    close(thing)
    return found


def write(memory: extmem.DeviceMemory, data: bytes) -> int:
    """Write into memory that arrived."""
    with memory:
        put(memory, data)
    return os.getpid()


def echo(connection: Any) -> None:
    """Receive over a pipe, look, and send it back."""
    thing = connection.recv()
    connection.send(describe(thing))
    connection.send(thing)
    connection.recv()  # until the other end has it
    close(thing)


def try_to_write(memory: extmem.DeviceMemory) -> str:
    """The class of what a write raises."""
    with memory:
        try:
            memory.map()[0] = 1
        except TypeError as error:
            return type(error).__name__
    return "written"


def never(thing: Any) -> None:
    """Reached only if the child was not killed while it unpickled."""
