"""A file system that a program serves, and that stops answering on request: `python -m … MOUNTPOINT`.

It has one file, `file`, of one page. It prints `ready` when it is mounted; after a line on stdin it answers no more. It
must run as root. Operations on its files block in the kernel until this process ends, which ends the mount.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from extmem.testing.children import Child
from extmem.testing.waiting import wait_until

_IN = struct.Struct("IIQQIIIHH")
_OUT = struct.Struct("IiQ")
_ATTR = struct.Struct("QQQQQQIIIIIIIIII")
_LOOKUP, _GETATTR, _OPEN, _RELEASE, _FLUSH, _INIT, _OPENDIR = 1, 3, 14, 18, 25, 26, 27
_ENOSYS, _ENOENT = 38, 2
_DETACH = 2


def _attr(node: int) -> bytes:
    mode = stat.S_IFDIR | 0o755 if node == 1 else stat.S_IFREG | 0o666
    return _ATTR.pack(node, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _answer(opcode: int, node: int, body: bytes) -> bytes | int:
    if opcode == _INIT:
        return struct.pack("IIIIHHIIHHII6I", 7, 26, 4096, 0, 12, 9, 4096, 1, 0, 0, 0, 0, *([0] * 6))
    if opcode == _LOOKUP:
        if body.rstrip(b"\0") != b"file":
            return _ENOENT
        return struct.pack("QQQQII", 2, 0, 0, 0, 0, 0) + _attr(2)
    if opcode == _GETATTR:
        return struct.pack("QII", 0, 0, 0) + _attr(node)
    if opcode in (_OPEN, _OPENDIR):
        return struct.pack("QII", 1, 0, 0)
    return b"" if opcode in (_FLUSH, _RELEASE) else _ENOSYS


def _serve(place: str) -> None:
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"test", place.encode(), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), "mount")
    print("ready", flush=True)
    while True:
        ready = select.select([device, sys.stdin], [], [])[0]
        if sys.stdin in ready:
            print("silent", flush=True)
            sys.stdin.readline()
            sys.stdin.read()  # until the end
            return
        request = os.read(device, 1 << 17)
        _, opcode, unique, node, *_ = _IN.unpack_from(request)
        if opcode in (2, 36):  # FORGET and INTERRUPT have no reply
            continue
        answer = _answer(opcode, node, request[_IN.size :])
        error, data = (-answer, b"") if isinstance(answer, int) else (0, answer)
        os.write(device, _OUT.pack(_OUT.size + len(data), error, unique) + data)


class SlowFiles:
    """The mounted file system. After `silence` every operation on it blocks."""

    def __init__(self, place: Path, child: Child) -> None:
        self.path = place / "file"
        self._child = child

    def end(self) -> None:
        """End the program, and with it the mount: blocked operations fail."""
        self._child.kill()

    def silence(self) -> None:
        assert self._child.process.stdin is not None
        self._child.process.stdin.write(b"now\n")
        self._child.process.stdin.flush()
        wait_until(lambda: "silent" in self._child.output, "the file system to fall silent")


@contextmanager
def slow_files(place: Path) -> Iterator[SlowFiles]:
    """Mount a file system of this kind at an empty directory; the test is skipped where none can be mounted."""
    if os.geteuid():
        pytest.skip("needs root, to be another user")
    place.mkdir()
    place.chmod(0o755)
    with Child([sys.executable, "-m", "tests.process.broker.fuse", str(place)], stdin=subprocess.PIPE) as child:
        try:
            wait_until(lambda: "ready" in child.output or not child.alive, "the file system")
            if not child.alive:
                pytest.skip(f"this machine mounts no FUSE file system: {child.output}")
            yield SlowFiles(place, child)
        finally:
            child.kill()
            assert child.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                child.process.stdin.close()
            ctypes.CDLL(None).umount2(str(place).encode(), _DETACH)


if __name__ == "__main__":
    _serve(sys.argv[1])
