"""Train a model while two processes answer with its weights, which are shared by name and changed in place.

The weights are one payload, on the GPU if PyTorch can use one. The trainer's own model uses it, and so do the models of
the workers, which may only read it. A worker computes an answer again if an update began meanwhile.
"""

import importlib.util
import subprocess
import sys

import extmem

NAME, STEPS = "example weights", 4


def network(device):
    from torch import nn

    return nn.Sequential(nn.Linear(4, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 1)).to(device)


def work(number: str) -> None:
    with extmem.open(NAME, timeout=60) as weights:
        model, seen = network("meta").requires_grad_(False), 0  # the model has no memory of its own
        model.load_state_dict(weights.torch(), assign=True)
        question = model[0].weight.new_full((1, 4), 0.5)
        print(f"worker {number}: on {question.device}, read-only: {weights.read_only}", flush=True)
        while seen < 2 * STEPS:  # each update adds 2
            weights.wait(after=seen, timeout=60)
            while True:
                with weights.stable() as look:
                    answer = model(question).item()
                if not look.changed:
                    break
            seen = look.generation
            print(f"worker {number}: {answer:.2f} after step {seen // 2}", flush=True)
        del model


def train() -> None:
    import torch

    model = network("cuda" if torch.cuda.is_available() else "cpu")
    with extmem.share(model.state_dict(), NAME) as weights:
        model.load_state_dict(weights.torch(), assign=True)  # from here on, its weights are the shared memory
        workers = [subprocess.Popen([sys.executable, __file__, n], stdout=-1, text=True) for n in "12"]
        print(*(worker.stdout.readline() for worker in workers), sep="", end="")  # both have opened the weights
        for _ in range(STEPS):
            rows = model[0].weight.new_empty(64, 4).uniform_()
            model.zero_grad()
            (model(rows) - rows.sum(1, keepdim=True)).square().mean().backward()
            with weights.update():
                torch.optim.SGD(model.parameters(), lr=0.05).step()
        print(*(worker.communicate()[0] for worker in workers), sep="", end="")
        del model


if importlib.util.find_spec("torch") is None:
    sys.exit("this example needs PyTorch: pip install torch")
work(sys.argv[1]) if sys.argv[1:] else train()
