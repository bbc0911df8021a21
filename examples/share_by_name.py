"""Two processes that know nothing of each other but a name share an array: what one writes, the other sees at once."""

import subprocess
import sys

import extmem

NAME = "example-frame"


def writer() -> None:
    with extmem.open_device(kind="host") as device, device.allocate((480, 640, 3), "uint8", name=NAME) as frame:
        frame.numpy()[:] = 7
        subprocess.run([sys.executable, __file__, "reader"], check=True)
        print("writer: the reader left", frame.numpy()[0, 0])
    try:
        extmem.open(NAME)
    except extmem.NameNotFoundError:
        print("writer: nobody holds it any more, so the name is gone")


def reader() -> None:
    with extmem.open(NAME) as frame:
        pixels = frame.numpy()
        print(f"reader: {pixels.shape} {pixels.dtype}, every value {pixels.min()}, on {frame.device.name}")
        pixels[0, 0] = (1, 2, 3)
        del pixels  # memory is not closed under an array that still looks at it


if __name__ == "__main__":
    reader() if sys.argv[1:] == ["reader"] else writer()
