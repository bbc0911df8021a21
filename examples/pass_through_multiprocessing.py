"""Pass memory through multiprocessing like any other argument: the receiver maps the same bytes."""

import multiprocessing
from multiprocessing.connection import Connection

import extmem


def work(memory: extmem.DeviceMemory, pipe: Connection) -> None:
    with memory, extmem.open_device(kind="host") as device:
        memory.numpy()[:] *= 2
        with device.allocate(4, "float32") as mine:
            mine.numpy()[:] = memory.numpy()[:4]
            pipe.send(mine)
            pipe.recv()  # the parent has received the memory, so it may be closed here


def main() -> None:
    context = multiprocessing.get_context("spawn")
    pipe, far_end = context.Pipe()
    with extmem.open_device(kind="host") as device, device.allocate(1_000_000, "float32") as memory:
        memory.numpy()[:] = 21
        child = context.Process(target=work, args=(memory, far_end))
        child.start()
        with pipe.recv() as theirs:
            pipe.send("received")
            child.join()
            print("parent: the child has doubled the array to", memory.numpy()[0])
            print("parent: the child has ended, and its own array still exists:", theirs.numpy())


if __name__ == "__main__":
    main()
