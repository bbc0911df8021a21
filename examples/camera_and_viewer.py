"""A camera sends frames through a channel to two processes, one of them slow, and no frame is copied on the way.

The archive reads every frame, and is slow: as it is reliable, the camera waits for it when the ring is full. The viewer
reads the newest frame, saves it as a PNG file, and skips what came meanwhile. `--without` opens the archive without
`reliable=True`: then the camera does not wait, frames are overwritten before the archive has read them, and the archive
ends with an error, because it is strict.
"""

import subprocess
import sys
import time

import numpy as np
from PIL import Image

import extmem

NAME, FRAMES, SHAPE, WAIT = "example camera", 50, (240, 320), 60.0


def camera(without: list[str]) -> None:
    columns = np.arange(SHAPE[1])
    with extmem.create_channel(NAME, SHAPE, "uint8", slots=6, when_full="wait", timeout=WAIT) as channel:
        readers = ["archive", *without], ["viewer"]
        children = [subprocess.Popen([sys.executable, __file__, *reader]) for reader in readers]
        while len(channel.info.readers) < 2 and all(child.poll() is None for child in children):
            time.sleep(0.01)
        for number in range(FRAMES):
            with channel.write() as frame:  # the end of the block publishes it
                frame.numpy()[:] = 255 * np.exp(-(((columns - 6 * number) / 30) ** 2))
                frame.meta = b"exposure %d" % number
        print(f"camera: {channel.count} frames, each written once into one of {channel.slots} slots", flush=True)
    if any([child.wait() for child in children]):
        sys.exit("camera: a reader failed")


def archive(without: list[str]) -> None:
    total = 0.0
    with extmem.open_channel(NAME, timeout=WAIT, every=True, reliable=not without, strict=True) as channel:
        for frame in channel:  # ends when the camera has closed the channel
            total += frame.numpy().mean()
            time.sleep(0.01)  # something slow
        print(f"archive: {channel.cursor} frames, {channel.lost} lost, mean {total / channel.cursor:.1f}", flush=True)


def viewer() -> None:
    shown = 0
    with extmem.open_channel(NAME, timeout=WAIT) as channel:
        for frame in channel:
            Image.fromarray(frame.numpy()).save("camera.png")
            shown, last = shown + 1, frame.meta.decode()
        print(f"viewer: camera.png shows the frame of {last}; {shown} were saved, {channel.lost} skipped", flush=True)


role, *more = sys.argv[1:] or ["camera"]
if role in ("archive", "viewer"):
    archive(more) if role == "archive" else viewer()
else:
    camera([role] if role == "--without" else [])
