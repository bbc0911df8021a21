"""Let a child inherit an NT handle under the same value, as after CreateProcess on Windows."""

import sys

import extmem


def parent() -> None:
    with extmem.open_device(kind="host") as device, device.allocate(4096, inherit=True) as memory:
        memory.map()[:6] = b"parent"
        with memory.export_handle() as handle:
            print(f"parent: handle {int(handle):#x}, inheritable {handle.info.inherit}")
            extmem.process.run([sys.executable, __file__, str(int(handle))], check=True, timeout=30)
        print("parent: the child wrote", bytes(memory.map()[:5]))


def child(value: int) -> None:
    with extmem.raw.nt_handle(value) as handle, extmem.open(handle) as memory:
        print(f"child: handle {int(handle):#x} refers to memory with {bytes(memory.map()[:6])}")
        memory.map()[:5] = b"child"


if __name__ == "__main__":
    child(int(sys.argv[1])) if len(sys.argv) > 1 else parent()
