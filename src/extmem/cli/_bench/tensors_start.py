"""Part of `extmem bench tensors`: from a new process to a tensor on the GPU, against a program with cuda-bindings.

How this works. New interpreters start in turns. Each imports PyTorch; then the time begins. One imports extmem and
opens a name. The other is `bare_start.py`: it inherits an fd of the same memory, imports cuda-bindings, retains the
GPU's context, imports the fd, maps it and makes a tensor of the address. The time ends with the tensor, and contains
the context of the GPU. The memory is once of CUDA and once of Vulkan, where the GPU has a Vulkan device: then extmem
must not open a VkDevice. Its readers have the right to read, as those of `share` have by default.

The time of imports comes from other runs, with `-X importtime`: the modules that only extmem's program imports, without
those of PyTorch and cuda-bindings, which the other imports too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import extmem
from extmem import vk
from extmem.cli._bench.measure import Figure, at_most, interleaved, ratio, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark measures fds of Linux")

from extmem.cli._bench.environment import Environment

__all__ = ["figures", "own_imports"]

_FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
_SIZE = 4 << 20
_DEADLINE = 120.0
_BARE = str(Path(__file__).with_name("bare_start.py"))
_OURS = """
import os, sys, time
import torch
begin = time.perf_counter_ns()
import extmem
memory = extmem.open(sys.argv[1])
tensor = memory.torch()
spent = time.perf_counter_ns() - begin
if sys.argv[2:]:
    os._exit(0)
import json
sys.stdout.write(json.dumps({"nanoseconds": spent, "first": int(tensor[0])}))
"""
"""The program of extmem. With a second argument it ends when it has the tensor, before it looks at it."""
_VALUE = 7


def figures(
    env: Environment, uuid: bytes, rounds: int, report: Callable[[str], None], *, vulkan: bool
) -> Iterator[Figure]:
    """Start `rounds` processes of each program for each kind of memory."""
    for kind in ("cuda", "vulkan"):
        if kind == "vulkan" and not vulkan:
            report("memory of Vulkan is not measured: the GPU has no Vulkan device here")
            yield unbounded("from a new process to a tensor of Vulkan: no Vulkan device", 0, "not measured")
            continue
        report(f"starting {rounds} processes that open memory of {kind}, in turns with cuda-bindings alone")
        worker, name = env.worker("holder"), env.name(f"start {kind}")
        ours, bare, imported = worker.call(f"{__name__}:start_in_turns", kind, name, uuid, rounds, deadline=600.0)
        env.dismiss(worker)
        what = f"from a new process to a tensor of memory of {kind}"
        yield at_most(f"{what}, by name, against cuda-bindings alone", ratio(ours, bare), 1.15)
        yield at_most(f"{what}: imports beyond PyTorch and cuda-bindings", statistics.median(imported), 15.0, "ms")
        yield unbounded(f"{what}, by name, p50", statistics.median(ours) / 1e6, "ms")
        yield unbounded(f"{what}, cuda-bindings alone, p50", statistics.median(bare) / 1e6, "ms")


# Task of the process that holds the memory.


def start_in_turns(kind: str, name: str, uuid: bytes, rounds: int) -> tuple[list[int], list[int], list[float]]:
    """Holder: return the nanoseconds of both programs, and the milliseconds of imports of extmem's alone."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with (
        extmem.open_device(kind=kind, uuid=uuid) as device,
        device.allocate(_SIZE, "uint8", name=name, access=extmem.Access.READ) as memory,
    ):
        memory.fill(_VALUE)
        size, flags = memory.allocation_size, int(memory.descriptor.dedicated is not None)

        def ours(*options: str) -> subprocess.CompletedProcess[str]:
            return _run([*options, "-P", "-c", _OURS, name, *options[1:]], environment)

        def bare(*options: str) -> subprocess.CompletedProcess[str]:
            with memory.export_handle(_FD) as handle:
                arguments = [kind, int(handle), size, _ordinal(uuid), flags]
                return _run([*options, "-P", _BARE, *map(str, arguments)], environment, (int(handle),))

        both = interleaved(rounds, lambda: _nanoseconds(ours()), lambda: _nanoseconds(bare()), warm_up=1)
        others = bare("-X", "importtime").stderr
        imported = [own_imports(ours("-X", "importtime").stderr, others) for _ in range(min(rounds, 3))]
    return both[0], both[1], imported


def _ordinal(uuid: bytes) -> int:
    from extmem.devices import select

    return [offer.identity.device_uuid for offer in select.cuda_offers()].index(uuid)


def _run(
    arguments: list[str], environment: dict[str, str], fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        pass_fds=fds,
        timeout=_DEADLINE,
        check=False,
    )
    if done.returncode:
        raise OSError(f"a new process failed with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done


def _nanoseconds(done: subprocess.CompletedProcess[str]) -> int:
    answer: dict[str, Any] = json.loads(done.stdout)
    if answer["first"] != _VALUE:
        raise RuntimeError(f"a new process has read {answer['first']} and not {_VALUE}")
    return cast("int", answer["nanoseconds"])


def own_imports(ours: str, others: str) -> float:
    """Return the milliseconds of the modules in one output of `-X importtime` that are not in the other."""
    times, known = _import_times(ours), _import_times(others)
    return sum(spent for module, spent in times.items() if module not in known) / 1000


def _import_times(output: str) -> dict[str, int]:
    """Return the microseconds of each module, without those that it imports."""
    found = {}
    for line in output.splitlines():
        if line.startswith("import time:") and "|" in line:
            spent, _, module = line.removeprefix("import time:").split("|", 2)
            if spent.strip().isdecimal():
                found[module.strip()] = int(spent)
    return found
