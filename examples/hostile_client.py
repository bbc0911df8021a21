"""Show what a hostile program can try on memory that was shared with it for reading, and the results."""

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
        fd = memory.record.allocation.fd or -1  # a hostile program can read the library's internal objects
        attempts: dict[str, Callable[[], object]] = {
            "write through a view": lambda: memory.map().__setitem__(0, 1),
            "make an array writeable": lambda: setattr(memory.numpy().flags, "writeable", True),
            "map it for writing": lambda: mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE),
            "write to the fd": lambda: os.pwrite(fd, b"evil", 0),
            "truncate the file": lambda: os.ftruncate(fd, 0),
            "request the right to write": lambda: extmem.open_handle(NAME, extmem.Access.READ_WRITE),
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
        sock.settimeout(10)
        sock.connect(path)
        sock.send(os.urandom(512))
        if sock.recv(4096) and not sock.recv(4096):
            raise ConnectionRefusedError("the broker replied with an error and closed the connection")


if __name__ == "__main__":
    hostile() if sys.argv[1:] == ["hostile"] else exporter()
