"""Bad input on Linux: descriptors that contradict their memory file, and fds that are not payloads.

The rest of the list is in test_bad_input.py.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator

import pytest

import extmem
from extmem import errors, raw
from extmem.api import Device
from extmem.manager import manager
from extmem.objects import Share
from tests.behaviours.bad_input import described, refused
from tests.behaviours.steps import READ_WRITE, SIZE, import_fd, import_win32

# Descriptors that contradict their file.


def _memfd(size: int, seals: int = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL) -> int:
    number = os.memfd_create("liar", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(number, size)
    if seals:
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, seals)
    return number


@contextlib.contextmanager
def shared(number: int, descriptor: bytes, name: str) -> Iterator[None]:
    """Share any file with any description, as a hostile exporter can without the library."""
    exported = manager().export(
        [number], descriptor, share=Share.NT, name=name, access=READ_WRITE, sddl=None, inherit=False
    )
    try:
        yield
    finally:
        manager().release(exported.number)


def test_a_descriptor_that_claims_more_than_the_fd_holds(device: Device, name: str) -> None:
    """It must be refused before it is mapped: reading past the end of a file raises SIGBUS."""
    lie = described(device, allocation_size=1 << 20, payload_size=1 << 20)
    number = _memfd(8192)
    try:
        with shared(number, lie.encode(), name):
            with refused(errors.ExtmemError, str(1 << 20)):
                extmem.open(name).map()
            with refused(errors.ExtmemError, str(1 << 20)):
                import_win32(device, None, name, size=1 << 20).map()
    finally:
        os.close(number)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: b"\xff" + text[1:],
        lambda text: text[:-1],
        lambda text: text + b"\0",
        lambda text: b"\x00" * len(text),
        lambda text: text.replace(bytes([4096 >> 8 & 0xFF, 0]), bytes([0xFF, 0xFF]), 1),
    ],
    ids=["empty", "wrong first byte", "cut off", "trailing byte", "zeros", "another size"],
)
def test_a_descriptor_that_is_damaged(device: Device, name: str, damage: object) -> None:
    number = _memfd(8192)
    try:
        text = damage(described(device).encode())  # type: ignore[operator]  # a function
        with shared(number, text, name), refused(errors.ExtmemError):
            extmem.open(name).map()
    finally:
        os.close(number)


# File descriptors that are not payloads.


@contextlib.contextmanager
def a_file_descriptor(kind: str) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        if kind == "socket":
            here, there = socket.socketpair()
            stack.callback(here.close)
            stack.callback(there.close)
            yield here.fileno()
        elif kind == "file":
            file = stack.enter_context(tempfile.TemporaryFile())
            file.truncate(1 << 16)
            yield file.fileno()
        elif kind == "unsealed":
            number = _memfd(1 << 16, seals=0)
            stack.callback(os.close, number)
            yield number
        else:
            number = _memfd(SIZE // 2)
            stack.callback(os.close, number)
            yield number


@pytest.mark.parametrize(
    ("kind", "message"), [("socket", "socket"), ("file", "file"), ("unsealed", "seal"), ("too small", "")]
)
def test_an_fd_that_is_no_payload(device: Device, kind: str, message: str) -> None:
    with a_file_descriptor(kind) as number:
        before = os.fstat(number).st_ino
        with refused(errors.ExtmemError, message):
            import_fd(device, number)
        with refused(errors.ExtmemError, message):
            raw.import_payload(device, number, described(device))
        assert os.fstat(number).st_ino == before  # it is still open and belongs to the caller


def test_an_fd_that_is_not_open(device: Device) -> None:
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    with refused(extmem.RuleViolation, str(read), "do: "):
        import_fd(device, read)
    with pytest.raises(OSError) as error:
        raw.fd_handle(read)
    assert error.value.errno == errno.EBADF
