"""Render frames with Vulkan, blur them with PyTorch in another process, and save the result, without a copy between.

Both payloads belong to the Vulkan device. The other process opens them by name as tensors, on the GPU if CUDA supports
it, else on the host. Each process waits for its own device, and then reports by a line through a pipe.
"""

import importlib.util
import subprocess
import sys

import numpy as np
from PIL import Image

import extmem

HEIGHT, WIDTH, ROW, WHITE = 240, 320, 320 * 4, int(np.float32(1).view("uint32"))


def render(device: extmem.Device, frame: extmem.DeviceMemory, number: int) -> None:
    buffer = frame.buffer()
    with device.commands() as commands:
        commands.acquire(buffer)
        commands.fill_buffer(buffer, 0)
        for bar in range(6):
            commands.fill_buffer(buffer, WHITE, offset=(40 * bar + 5 * number) % (HEIGHT - 20) * ROW, size=20 * ROW)
        commands.release(buffer)  # done when the block ends


def blur() -> None:
    import torch

    with extmem.open("example frame") as frame, extmem.open("example blurred") as blurred:
        source, target = frame.torch(), blurred.torch()
        kernel = torch.full((1, 1, 9, 9), 1 / 81, device=source.device)
        for _ in sys.stdin:
            target.copy_(torch.nn.functional.conv2d(source[None, None], kernel, padding=4)[0, 0])
            if target.is_cuda:
                torch.cuda.synchronize()
            print(target.device, flush=True)
        del source, target


def main() -> None:
    if importlib.util.find_spec("torch") is None:
        sys.exit("this example needs PyTorch: pip install torch")
    with (
        extmem.open_device(kind="vulkan") as device,
        device.allocate((HEIGHT, WIDTH), "float32", name="example frame") as frame,
        device.allocate((HEIGHT, WIDTH), "float32", name="example blurred") as blurred,
        subprocess.Popen([sys.executable, __file__, "blur"], stdin=-1, stdout=-1, text=True, bufsize=1) as child,
    ):
        for number in range(3):
            render(device, frame, number)
            print("next", file=child.stdin)
            where, image = child.stdout.readline().strip(), blurred.read()
            print(f"frame {number}, blurred on {where}: {image.min():.2f} to {image.max():.2f}")
        Image.fromarray((255 * image).clip(0, 255).astype("uint8")).save("blurred.png")


blur() if sys.argv[1:] == ["blur"] else main()
