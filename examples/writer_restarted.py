"""Kill the writer of a channel in the middle of its work, start it again, and go on with the next frame.

The reader keeps the channel meanwhile, and waits for the next writer (`reconnect=True`). That one goes on with the next
number. Nobody sees a frame that was half written. `--without` leaves `reconnect=True` out: then the loop ends with an
error that names the writer.
"""

import os
import subprocess
import sys
import time
from threading import Timer

import extmem

NAME, FRAMES, SHAPE, WAIT = "example restarted", 200, (240, 320), 60.0
WRITER = [sys.executable, __file__, "writer"]


def reader(without: list[str]) -> None:
    writers = [subprocess.Popen(WRITER)]
    again = Timer(0.3, lambda: writers.append(subprocess.Popen(WRITER)))  # a supervisor needs a moment, too
    number, pids = 0, []
    try:
        with extmem.open_channel(NAME, timeout=WAIT, every=True, reliable=True, reconnect=not without) as channel:
            while number < FRAMES:
                frame = next(channel)
                pixels = frame.numpy()
                if frame.number != number + 1 or pixels.min() != pixels.max():
                    sys.exit(f"reader: after frame {number} came {frame.number}, {pixels.min()} to {pixels.max()}")
                number, pid, pixels = frame.number, int(frame.meta), None  # an array that is alive keeps the slot
                if pid not in pids:
                    print(f"reader: writer {len(pids) + 1} begins with frame {number}")
                    pids.append(pid)
                if number >= FRAMES // 2 and not again.is_alive() and len(pids) == 1:
                    writers[0].kill()  # at any moment, also within a frame
                    again.start()
            print(f"reader: {number} frames in order, none lost, none torn")
    finally:
        again.cancel()
        for one in writers:
            one.kill()
            one.wait()


def writer() -> None:
    with extmem.create_channel(NAME, SHAPE, "uint8", when_full="wait", timeout=WAIT) as channel:
        while not channel.info.readers:
            time.sleep(0.01)
        while channel.count < FRAMES:
            with channel.write() as frame:
                frame.meta = b"%d" % os.getpid()
                for row in frame.numpy():  # row by row, so that a kill finds a frame half written
                    row[:] = (channel.count + 1) % 256


writer() if sys.argv[1:] == ["writer"] else reader(sys.argv[1:])
