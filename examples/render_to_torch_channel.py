"""A renderer sends frames through a channel to PyTorch in another process, and gets the results back by another one.

The slots are memory of the GPU if PyTorch has one. The renderer draws with NumPy, and copies each frame into a slot.
PyTorch's tensor is that slot, and on a GPU no wait of the host orders the two. It sends the brightest point back.
"""

import contextlib
import importlib.util
import subprocess
import sys

import numpy as np

import extmem

FRAMES, SHAPE, WAIT = 40, (120, 160), 120.0


def render(number: int, picture: np.ndarray, depth: np.ndarray) -> tuple[int, int]:
    at = int(60 + 40 * np.sin(number / 6)), int(80 + 60 * np.cos(number / 9))
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    depth[:] = np.hypot(rows - at[0], columns - at[1])
    picture[:] = np.exp(-((depth / 12) ** 2))
    return at


def renderer() -> None:
    if importlib.util.find_spec("torch") is None:
        sys.exit("this example needs PyTorch: pip install torch")
    import torch

    both, drawn = np.empty((2, *SHAPE), "float32"), {}
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(extmem.open_device(kind="cuda" if torch.cuda.is_available() else "host"))
        child = stack.enter_context(subprocess.Popen([sys.executable, __file__, "torch"]))
        options = {"when_full": "wait", "timeout": WAIT, "device": device}
        frames = stack.enter_context(extmem.create_channel("example frames", both.shape, both.dtype, **options))
        points = stack.enter_context(extmem.open_channel("example points", timeout=WAIT, every=True, start="oldest"))
        for number in range(1, FRAMES + 1):
            drawn[number] = render(number, *both)
            frames.put(both)
            found = points.read(timeout=WAIT)
            if tuple(found.numpy()) != drawn[int(found.meta)]:
                sys.exit(f"renderer: in frame {number} PyTorch found {found.numpy()}, not {drawn[number]}")
        print(f"renderer: PyTorch found the ball in each of {FRAMES} frames", flush=True)
    sys.exit(child.returncode)


def consumer() -> None:
    with (
        extmem.create_channel("example points", (2,), "int64", slots=8, when_full="wait", timeout=WAIT) as points,
        extmem.open_channel("example frames", timeout=WAIT, every=True, reliable=True, start="oldest") as frames,
    ):
        for frame in frames:
            picture, depth = tensor = frame.torch()  # on a GPU, the current stream waits for the frame
            points.put(np.array(divmod(int((picture - depth).argmax()), SHAPE[1])), meta=b"%d" % frame.number)
        print(f"torch: {frames.cursor} frames on {tensor.device}, {frames.lost} lost", flush=True)


consumer() if sys.argv[1:] == ["torch"] else renderer()
