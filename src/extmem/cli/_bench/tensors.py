"""`extmem bench tensors`: tensors shared by name, on the host and on a GPU, against what programs use without extmem.

How this works. Each part has a module, whose docstring tells what is compared:

1. `tensors_changes`: an update in place, seen by another process; reads that `stable` accepts; a table that lies.
2. `tensors_files`: a safetensors file in four processes, against the `safetensors` package.
3. `tensors_passing`: 300 tensors on a GPU, against the queue of `torch.multiprocessing`.
4. `tensors_lent`: PyTorch's own memory shared where it is, against imports in C.
5. `tensors_start`: from a new process to a tensor, against a program that has cuda-bindings alone.
6. `tensors_copies`: long copies to and from a GPU, against PyTorch's.

A worker process tells first what the machine has. A part that needs what it lacks is one figure with the unit "not
measured", whose name has the reason; it has no bound.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from extmem.cli._bench.measure import Figure, measured_parts, unbounded
from extmem.errors import UnsupportedError

if sys.platform != "linux":
    raise ImportError("this benchmark measures the broker, /proc and fds of Linux")

from extmem.cli._bench import (
    tensors_changes,
    tensors_copies,
    tensors_files,
    tensors_lent,
    tensors_passing,
    tensors_start,
)
from extmem.cli._bench.environment import Environment

__all__ = ["Machine", "figures", "found"]

_GPU_PARTS = ("gpu-files", "passing", "gpu-changes", "lent", "rounds", "start", "copies")


class Machine(NamedTuple):
    """What the machine has. A text is the reason for which something is missing; empty if it is there."""

    numpy: str
    torch: str
    safetensors: str
    gpu: str
    """Why PyTorch and extmem cannot use one GPU together."""
    uuid: bytes
    """The GPU that PyTorch calls cuda:0; empty without one."""
    vulkan: bool
    """Whether the GPU has a Vulkan device too."""
    name: str


def figures(
    env: Environment,
    rounds: int,
    report: Callable[[str], None],
    *,
    quick: bool = False,
    kills: int | None = None,
    parts: tuple[str, ...] = (),
) -> Iterator[Figure]:
    """Measure `rounds` of what is short. kills: how often a reader of lent memory is killed. parts: which; all without.

    With `quick`, files and tensors are small.
    """
    worker = env.worker("probe")
    machine = Machine(*worker.call(f"{__name__}:found", not parts or any(part in _GPU_PARTS for part in parts)))
    env.dismiss(worker)
    if machine.name:
        report(machine.name)
    short = min(rounds, 20) if quick else rounds
    uuid = machine.uuid
    measured: dict[str, Callable[[], Iterator[Figure]]] = {
        "changes": lambda: tensors_changes.changes(env, short, report),
        "reads": lambda: tensors_changes.reads(env, 1_000 if quick else 100_000, report),
        "table": lambda: tensors_changes.lying_table(env, 5 if quick else 50, report),
        "files": lambda: tensors_files.on_the_host(env, "NumPy", machine.safetensors, report, quick=quick),
        "torch-files": lambda: tensors_files.on_the_host(env, "PyTorch", machine.safetensors, report, quick=quick),
        "gpu-files": lambda: tensors_files.on_the_gpu(env, machine.safetensors, report, quick=quick),
        "passing": lambda: tensors_passing.figures(env, short, report),
        "gpu-changes": lambda: tensors_changes.changes(env, short, report, on_gpu=True),
        "lent": lambda: tensors_lent.figures(env, uuid, report, quick=quick),
        "rounds": lambda: tensors_lent.rounds(env, kills or (5 if quick else 500), report),
        "start": lambda: tensors_start.figures(env, uuid, 2 if quick else 8, report, vulkan=machine.vulkan),
        "copies": lambda: tensors_copies.figures(env, uuid, report, quick=quick),
    }
    for part, measure in measured.items():
        if parts and part not in parts:
            continue
        lacking = _lacking(part, machine)
        if lacking:
            report(f"{part} is not measured: {lacking}")
            yield unbounded(f"{part}: {lacking}", 0, "not measured")
        else:
            yield from measured_parts({part: measure}, report)


def _lacking(part: str, machine: Machine) -> str:
    """Return why a part cannot be measured; empty if it can."""
    if part in _GPU_PARTS:
        return machine.torch or machine.gpu
    return {"files": machine.numpy, "torch-files": machine.torch}.get(part, "")


# Task of the processes.


def found(gpu_too: bool) -> tuple[str, str, str, str, bytes, bool, str]:
    """Probe: return the fields of `Machine`. gpu_too: whether to look for a GPU, for which PyTorch is imported."""
    missing = {
        module: "" if importlib.util.find_spec(module) else f"{module} is not installed"
        for module in ("numpy", "torch", "safetensors")
    }
    gpu, uuid, vulkan, name = "no GPU was looked for", b"", False, ""
    if gpu_too and not missing["torch"]:
        gpu, uuid, vulkan, name = _gpu()
    return missing["numpy"], missing["torch"], missing["safetensors"], gpu, uuid, vulkan, name


def _gpu() -> tuple[str, bytes, bool, str]:
    from extmem.devices import select

    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU", b"", False, ""
    offers = select.cuda_offers()
    if not offers:
        return "extmem finds no CUDA device (cuda-bindings)", b"", False, ""
    identity = offers[0].identity
    try:
        every = select.enumerate_offers()
    except UnsupportedError:
        every = []
    both = any(one.kind == "vulkan" and one.identity.device_uuid == identity.device_uuid for one in every)
    return "", identity.device_uuid, both, f"{identity.device_name}, PyTorch {torch.__version__}"
