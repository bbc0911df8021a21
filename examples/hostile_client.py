"""What a hostile program may try on memory that was shared with it for reading, and what it gets."""

import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import extmem
from extmem.wire.runtime_dir import runtime_directory

NAME = "example-hostile"


def exporter() -> None:
    with extmem.open_device(kind="host") as device:
        with device.allocate(4096, name=NAME, access=extmem.Access.READ) as memory:
            memory.numpy()[:] = 42
            subprocess.run([sys.executable, __file__, "hostile"], check=True)
            print("exporter: all bytes are still 42:", bool((memory.numpy() == 42).all()))


def hostile() -> None:
    with extmem.open(NAME) as memory:
        fd = memory.holding.allocation.fd or -1  # what a program finds that looks into the library's own objects
        attempts: dict[str, Callable[[], object]] = {
            "write through a view": lambda: memory.map().__setitem__(0, 1),
            "make an array writeable": lambda: setattr(memory.numpy().flags, "writeable", True),
            "map it for writing": lambda: mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE),
            "write to the descriptor": lambda: os.pwrite(fd, b"evil", 0),
            "cut the file off under its readers": lambda: os.ftruncate(fd, 0),
            "ask for the right to write": lambda: extmem.open_handle(NAME, extmem.Access.READ_WRITE),
            "take the name": lambda: extmem.open_device(kind="host").allocate(4096, name=NAME),
            "send garbage to the object manager": lambda: garbage(str(runtime_directory().socket)),
        }
        for what, attempt in attempts.items():
            try:
                attempt()
            except (extmem.ExtmemError, OSError, TypeError, ValueError) as error:
                print(f"hostile: {what}: {type(error).__name__}")
            else:
                print(f"hostile: {what}: DONE")


def garbage(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(path)
        sock.send(os.urandom(512))
        if b"are no request" in sock.recv(4096):
            raise ConnectionRefusedError("told off, and hung up on")


if __name__ == "__main__":
    hostile() if sys.argv[1:] == ["hostile"] else exporter()
