"""A scripted Vulkan driver in Python, for the behaviour that tests cannot get from a real driver.

::

    from extmem.testing import fake_vulkan

    fake = fake_vulkan.FakeVulkan(gpus=[fake_vulkan.DISCRETE])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        fake.fail(2, vk.Result.ERROR_OUT_OF_DEVICE_MEMORY, command="vkAllocateMemory")
        ...
    assert not fake.misuses and not fake.alive()["memory"]

It replaces the Vulkan loader, so that the whole Vulkan device runs on it, and no Vulkan library is needed. It really
moves bytes: its payloads are memory files, which other processes can import by fd, or on Windows sections, which they
import by NT handle, name or KMT number. The expression that `elsewhere(fake)` returns opens a device of an equal fake
in another process; it can be the `remote` of `conformance.run`.

* *GPUs* (`Gpu`): names, UUIDs, memory types and heaps, queue families, extensions, what can be shared and how.
* *Script*: `fail` the n-th call, `failing` as an arm of `faults.fail_each`, `lose_device`, `missing` commands.
* *Manners* (`Manners`): invalid calls that real drivers accept, and what a bad fd does to a process.
* *Strictness*: `misuses` lists what the specification forbids and a driver need not notice: use after destruction,
  wrong sizes, memory used that was not acquired from VK_QUEUE_FAMILY_EXTERNAL, objects left behind.
* *Counters*: `alive()` counts the living objects and their bytes; `shares` lists the parameters of each NT export.

A memory file whose name begins with "fake dma-buf" represents a dma-buf of another driver. A GPU imports it if its
`external` and `extensions` include dma-bufs.

`Gpu.modifiers` are the DRM format modifiers that its images can have.

Semaphores and fences are shared by fd as `Gpu.sync` states: their payloads are memory files, which processes share. A
queue executes a batch when what it waits for is signaled, by whichever process (`execution`).

Not modelled: pipelines, sparse and protected memory, export as dma-buf, vkCmdPipelineBarrier2.
"""

from __future__ import annotations

from extmem.testing.fake_vulkan.gpus import (
    BINARY_SYNC,
    DISCRETE,
    HOST_POINTERS,
    INTEGRATED,
    NON_COHERENT,
    PAYLOAD_NAME,
    SHARED_SYNC,
    SHARING_EXTENSION,
    SYNC_EXTENSIONS,
    SYNC_FILES,
    External,
    ExternalSync,
    Family,
    Gpu,
    Manners,
    MemoryType,
    Modifier,
    shared,
)
from extmem.testing.fake_vulkan.installing import EXIT_MISUSE, elsewhere, install_here, installed, open_here, told_of
from extmem.testing.fake_vulkan.machine import FakeLoader, FakeVulkan, Misuse

__all__ = [
    "BINARY_SYNC",
    "DISCRETE",
    "EXIT_MISUSE",
    "HOST_POINTERS",
    "INTEGRATED",
    "NON_COHERENT",
    "PAYLOAD_NAME",
    "SHARED_SYNC",
    "SHARING_EXTENSION",
    "SYNC_EXTENSIONS",
    "SYNC_FILES",
    "External",
    "ExternalSync",
    "FakeLoader",
    "FakeVulkan",
    "Family",
    "Gpu",
    "Manners",
    "MemoryType",
    "Misuse",
    "Modifier",
    "elsewhere",
    "install_here",
    "installed",
    "open_here",
    "shared",
    "told_of",
]
