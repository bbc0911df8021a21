"""The functions that pickles name: their names and arguments are part of the wire format."""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import pytest

import extmem
from extmem.api import Device
from tests.behaviours.steps import FD, W32, export

pytestmark = pytest.mark.linux_only("there are fds, and a version of the wire format in each ticket")
NUMBER = 0x4000_0042
OTHERS = {"another version": bytes((99,)) + bytes(16), "the earliest version": bytes(16)}
PICKLE = b"\x80\x04c%b\n%b\n%b\x85R."
"""A pickle of protocol 4: the module and name of a function, and its argument."""


def function_in(data: bytes) -> str:
    """Return the one function that a pickle names: `module name`."""
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "STACK_GLOBAL":
            return " ".join(strings[-2:])
        if opcode.name == "GLOBAL":
            return str(argument)
        if isinstance(argument, str):
            strings.append(argument)
    raise AssertionError("the pickle names no function")


@pytest.mark.parametrize(
    ("types", "make", "name"),
    [
        (W32, lambda memory: memory, "receive_memory"),
        (W32, lambda memory: memory.export_handle(W32), "receive_nt_handle"),
        (FD, lambda memory: memory.export_handle(FD), "receive_fd_handle"),
        (W32, lambda memory: extmem.KmtHandle(NUMBER), "receive_kmt_handle"),
    ],
)
def test_pickles_name_functions_that_do_not_move(
    device: Device, types: Any, make: Callable[[Any], Any], name: str
) -> None:
    with export(device, types=types) as memory, make(memory) as thing:
        data = pickle.dumps(thing)
        assert function_in(data) == f"extmem._pickles {name}"
        pickle.loads(data).close()  # the ticket is claimed


@pytest.mark.parametrize("version", OTHERS)
@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("receive_memory", lambda memory: memory.map()),
        ("receive_nt_handle", lambda handle: handle.info),
        ("receive_fd_handle", int),
    ],
)
def test_a_pickle_of_another_version(name: str, use: Callable[[Any], Any], version: str) -> None:
    ticket = OTHERS[version]
    planted = PICKLE % (b"extmem._pickles", name.encode(), b"C" + bytes((len(ticket),)) + ticket)
    assert function_in(planted) == f"extmem._pickles {name}"
    thing = pickle.loads(planted)
    assert thing.closed
    with pytest.raises(
        extmem.InvalidHandleError, match=r"is of version (99|2) of the wire format.*same version of extmem"
    ):
        use(thing)
    thing.close()


def test_a_kmt_handle_is_its_number() -> None:
    planted = PICKLE % (b"extmem._pickles", b"receive_kmt_handle", b"J" + NUMBER.to_bytes(4, "little"))
    assert pickle.loads(planted) == extmem.KmtHandle(NUMBER)
