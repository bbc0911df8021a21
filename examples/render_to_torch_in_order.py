"""Render frames with Vulkan and process them with PyTorch in another process, with no wait of a host between frames.

Two timelines order the queue and the stream. `--without` leaves a signal out: then the program ends with an error.
"""

import importlib.util
import subprocess
import sys

import extmem

SHAPE, FRAMES, START, WAIT = (480, 640), 100, 60.0, 5.0


def renderer(without: list[str]) -> None:
    if importlib.util.find_spec("torch") is None:
        sys.exit("this example needs PyTorch: pip install torch")
    try:
        extmem.open_device(kind="cuda").close()
    except extmem.UnsupportedError as error:
        sys.exit(f"this example needs a GPU that CUDA supports: {error}")
    with (
        extmem.open_device(kind="vulkan") as device,
        device.allocate(SHAPE, "int32", name="example frame") as frame,
        device.timeline(name="example rendered") as rendered,
        device.timeline(name="example doubled") as doubled,
        subprocess.Popen([sys.executable, __file__, "torch", *without]),
    ):
        doubled.wait(1, timeout=START)  # PyTorch is loaded
        for number in range(1, FRAMES + 1):
            with device.commands(wait=(doubled, number), signal=(rendered, number)) as commands:
                commands.acquire(frame.buffer())
                commands.fill_buffer(frame.buffer(), number)
                commands.release(frame.buffer())
        try:
            doubled.wait(FRAMES + 1, timeout=WAIT)
        except TimeoutError:
            doubled.signal(doubled.value + 1)  # the signal that was left out, so that the queue and the stream end
            raise
        print(f"renderer: {FRAMES} frames were doubled in order; the last shows {frame.read().max()}")


def consumer(without: list[str]) -> None:
    import torch

    with extmem.open("example frame") as frame, extmem.open_timeline("example rendered") as rendered:
        with extmem.open_timeline("example doubled") as doubled, torch.cuda.stream(torch.cuda.Stream()):
            stream, image, wrong = torch.cuda.current_stream(), frame.torch(), torch.zeros(1, device="cuda")
            doubled.signal(1)
            for number in range(1, FRAMES + 1):
                signal = None if without and number == FRAMES // 2 else (doubled, number + 1)
                with frame.access(stream=stream, wait=(rendered, number), signal=signal):
                    wrong += (image != number).sum()
                    image.mul_(2)
            del image
            sys.exit(f"torch: {wrong.item():.0f} wrong pixels in {FRAMES} frames" if wrong.item() else 0)


if __name__ == "__main__":
    consumer(sys.argv[2:]) if sys.argv[1:2] == ["torch"] else renderer(sys.argv[1:])
