"""A scripted CUDA driver in Python, on which the CUDA device runs without a GPU.

::

    from extmem.testing import fake_cuda

    fake = fake_cuda.FakeCuda()
    with fake_cuda.installed(fake), extmem.open_device(kind="cuda") as device:
        fake.fail(1, fake_cuda.OUT_OF_MEMORY, command="cuMemCreate")
        ...
    assert not fake.misuses and not fake.alive()

It replaces the functions of `cuda.bindings.driver` that the CUDA device calls. Structs and enums are those of
cuda-bindings, which must be installed, and which needs no driver for them. The fake really moves bytes: device memory
is memory files at real addresses, shared by fd; on Windows section objects, shared by NT handle. Its default GPU is
`fake_vulkan.DISCRETE` as CUDA reports it, so that with both installed each imports what the other made.

* *GPUs* (`Gpu`): names, UUIDs, memory, what they can do.
* *Script*: `fail` the n-th call, `failing` as an arm of `faults.fail_each`, `missing` functions.
* *Manners*: as observed with CUDA 13, an import with a wrong dedicated flag or a smaller size succeeds (and is recorded
  here), a larger one fails when it is mapped, a bad fd gives CUDA_ERROR_UNKNOWN and has no other effect.
* *Streams* execute in order what they are given: waits for external semaphores (of a fake Vulkan driver) and for words
  of registered memory, signals, writes, host functions, launches of graphs. What waits is executed by a thread later.
* *Strictness*: `misuses` lists what the driver API forbids: wrong handles, no current context, the wrong order.
* *Counters*: `alive()` counts the living objects.

On Windows it imports what a fake Vulkan driver exports by handle, name and KMT number, and Direct3D's memory as
`fake_vulkan.win32.make_texture` makes it. Not modelled: kernels, texels of arrays.
"""

from __future__ import annotations

from extmem.testing.fake_cuda.installing import EXIT_MISUSE, elsewhere, installed, open_here
from extmem.testing.fake_cuda.machine import OUT_OF_MEMORY, FakeCuda, Misuse
from extmem.testing.fake_cuda.objects import Gpu

__all__ = ["EXIT_MISUSE", "OUT_OF_MEMORY", "FakeCuda", "Gpu", "Misuse", "elsewhere", "installed", "open_here"]
