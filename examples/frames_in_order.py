"""Hand frames from one process to another and back, each in turn, by two timelines: no process polls or sleeps.

The renderer owns two timelines: the value of `rendered` is the number of the last complete frame, that of `consumed`
the number of the last frame that the other process has read. Each process waits for a value of the other before it
touches the image. `--without` leaves one signal out, as a fault would: then the wait for it ends with an error instead
of a wrong frame.
"""

import subprocess
import sys

import extmem

FRAMES, START, WAIT = 100, 60.0, 5.0


def renderer(without: list[str]) -> None:
    with (
        extmem.open_device(kind="host") as device,
        device.allocate((480, 640), "uint8", name="example image") as image,
        device.timeline(name="example rendered") as rendered,
        device.timeline(name="example consumed") as consumed,
    ):
        child = subprocess.Popen([sys.executable, __file__, "consumer", *without])
        pixels = image.numpy()
        try:
            for number in range(1, FRAMES + 1):
                # The consumer is done with the frame before. It takes the first one when it has started.
                consumed.wait(number - 1, timeout=START if number == 2 else WAIT)
                pixels[:] = number
                rendered.signal(number)
            consumed.wait(FRAMES, timeout=WAIT)
            print(f"renderer: {FRAMES} frames were consumed in order")
        finally:
            del pixels
            failed = child.wait(START)
    if failed:
        sys.exit("renderer: the consumer failed")


def consumer(without: list[str]) -> None:
    with (
        extmem.open("example image") as image,
        extmem.open_timeline("example rendered", access=extmem.Access.READ) as rendered,
        extmem.open_timeline("example consumed") as consumed,
    ):
        for number in range(1, FRAMES + 1):
            rendered.wait(number, timeout=WAIT)
            seen = image.read()
            if seen.min() != number or seen.max() != number:
                sys.exit(f"consumer: frame {number} shows {seen.min()} to {seen.max()}")
            if not (without and number == FRAMES // 2):
                consumed.signal(number)


if __name__ == "__main__":
    if [one for one in sys.argv[1:] if one not in ("consumer", "--without")]:
        sys.exit(__doc__)
    consumer(sys.argv[2:]) if sys.argv[1:2] == ["consumer"] else renderer(sys.argv[1:])
