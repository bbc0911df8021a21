"""Share an array between two processes by its name: what one writes, the other can read immediately."""

import subprocess
import sys

import extmem

NAME = "example-frame"


def writer() -> None:
    with extmem.open_device(kind="host") as device, device.allocate((480, 640, 3), "uint8", name=NAME) as frame:
        frame.numpy()[:] = 7
        subprocess.run([sys.executable, __file__, "reader"], check=True)
        print("writer: the reader wrote", frame.numpy()[0, 0])
    try:
        extmem.open(NAME)
    except extmem.NameNotFoundError:
        print("writer: the last holder has closed the memory, so the name has ended")


def reader() -> None:
    with extmem.open(NAME) as frame:
        pixels = frame.numpy()
        print(f"reader: {pixels.shape} {pixels.dtype}, every value {pixels.min()}, on {frame.device.name}")
        pixels[0, 0] = (1, 2, 3)
        del pixels  # memory cannot be closed while an array uses it


if __name__ == "__main__":
    reader() if sys.argv[1:] == ["reader"] else writer()
