"""Memory and handles travel through multiprocessing like any other argument; what arrives is the same bytes."""

import multiprocessing
from multiprocessing.connection import Connection

import extmem


def work(memory: extmem.DeviceMemory, line: Connection) -> None:
    with memory, extmem.open_device(kind="host") as device:
        memory.numpy()[:] *= 2
        with device.allocate(4, "float32") as mine:
            mine.numpy()[:] = memory.numpy()[:4]
            line.send(mine)
            line.recv()  # the parent has it; only now may it be closed here


def main() -> None:
    context = multiprocessing.get_context("spawn")
    line, far = context.Pipe()
    with extmem.open_device(kind="host") as device, device.allocate(1_000_000, "float32") as memory:
        memory.numpy()[:] = 21
        child = context.Process(target=work, args=(memory, far))
        child.start()
        with line.recv() as theirs:
            line.send("thanks")
            child.join()
            print("parent: the child doubled my array to", memory.numpy()[0])
            print("parent: and made one of its own, which outlives it:", theirs.numpy())


if __name__ == "__main__":
    main()
