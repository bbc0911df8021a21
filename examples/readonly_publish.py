"""Publish an array for reading only: NumPy, the object manager and the kernel refuse writes of other processes."""

import mmap
import subprocess
import sys

import extmem

NAME = "example-published"
OPAQUE_FD = extmem.vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD


def publisher() -> None:
    with extmem.open_device(kind="host") as device:
        with device.allocate((4, 4), "int32", name=NAME, access=extmem.Access.READ) as table:
            table.numpy()[:] = 5
            subprocess.run([sys.executable, __file__, "subscriber"], check=True)
            with table.export_handle(OPAQUE_FD) as fd:
                try:
                    mmap.mmap(int(fd), 64, prot=mmap.PROT_READ | mmap.PROT_WRITE)
                except PermissionError as error:
                    print("the kernel, for a writable mapping of the exported fd:", error.strerror)
            print("publisher: still", table.numpy()[0, 0])


def subscriber() -> None:
    with extmem.open(NAME) as table:
        print("subscriber: read-only:", table.read_only, "sum:", table.numpy().sum())
        try:
            table.numpy()[0, 0] = 6
        except ValueError as error:
            print("NumPy:", error)
    try:
        extmem.open(NAME, access=extmem.Access.READ_WRITE)
    except extmem.AccessDeniedError as error:
        print("the object manager:", error)


if __name__ == "__main__":
    subscriber() if sys.argv[1:] else publisher()
