"""A renderer sends frames through a channel to PyTorch in another process, and gets the results back by another one.

A frame is a picture and its depth: two arrays in one slot. PyTorch's tensors are that memory; if PyTorch has a GPU, it
copies them there once, and computes on it. It sends the place of the brightest point back.
"""

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
    arrays, drawn = {"picture": (SHAPE, "float32"), "depth": (SHAPE, "float32")}, {}
    with (
        subprocess.Popen([sys.executable, __file__, "torch"]) as child,
        extmem.create_channel("example frames", arrays, when_full="wait", timeout=WAIT) as frames,
        extmem.open_channel("example points", timeout=WAIT, every=True, reliable=True, start="oldest") as points,
    ):
        for number in range(1, FRAMES + 1):
            with frames.write() as frame:
                drawn[number] = render(number, *frame.numpy().values())
            found = points.read(timeout=WAIT)
            if tuple(found.numpy()) != drawn[int(found.meta)]:
                sys.exit(f"renderer: in frame {number} PyTorch found {found.numpy()}, not {drawn[number]}")
        print(f"renderer: PyTorch found the ball in each of {FRAMES} frames", flush=True)
    sys.exit(child.returncode)


def consumer() -> None:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with (
        extmem.create_channel("example points", (2,), "int64", slots=8, when_full="wait", timeout=WAIT) as points,
        extmem.open_channel("example frames", timeout=WAIT, every=True, reliable=True, start="oldest") as frames,
    ):
        for frame in frames:
            arrays = {name: tensor.to(device) for name, tensor in frame.torch().items()}
            brightest = int((arrays["picture"] - arrays["depth"]).argmax())
            points.put(np.array(divmod(brightest, SHAPE[1])), meta=b"%d" % frame.number)
        print(f"torch: {frames.cursor} frames on {device}, {frames.lost} lost", flush=True)


consumer() if sys.argv[1:] == ["torch"] else renderer()
