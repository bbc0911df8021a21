"""Load a safetensors file in three processes: it is read once, and all of them use the same memory.

The first process that asks for the name reads each tensor of the file to its place, on the GPU if PyTorch can use one,
else on the host. The others get that memory, and wait while it is being read. No process has a copy of its own.
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import extmem

NAME, PROCESSES = "example model", 3


def network(device):
    from torch import nn

    return nn.Sequential(nn.Embedding(1000, 256), nn.Flatten(), nn.Linear(1024, 1024), nn.Linear(1024, 2)).to(device)


def answer(path: str, number: str) -> None:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with extmem.load_safetensors(path, NAME, device=device) as weights:
        model = network("meta").requires_grad_(False)
        model.load_state_dict(weights.torch(), assign=True)  # 5 tensors over the shared memory
        says = model(torch.arange(4, device=device)[None])
        print(f"process {number}, on {says.device}: {[round(n, 3) for n in says[0].tolist()]}", flush=True)
        sys.stdin.read()  # holds the memory until all have printed
        del model


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "model.safetensors"))
        with extmem.share(network("cpu").state_dict()) as made:
            extmem.save_safetensors(made, path)
        children = [
            subprocess.Popen([sys.executable, __file__, path, str(number)], stdin=-1, stdout=-1, text=True)
            for number in range(PROCESSES)
        ]
        for child in children:
            print(child.stdout.readline(), end="")
        for found in extmem.names(NAME):
            print(f"one payload named {found.name!r}: {found.size / 2**20:.1f} MiB for {PROCESSES} processes")
        for child in children:
            child.communicate()


if importlib.util.find_spec("torch") is None:
    sys.exit("this example needs PyTorch: pip install torch")
answer(*sys.argv[1:]) if sys.argv[1:] else main()
