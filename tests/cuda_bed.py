"""A GPU with a CUDA and a Vulkan driver, both scripted: tests of the CUDA device use it where there is no GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from extmem.testing import fake_cuda, fake_vulkan

__all__ = ["both"]


@contextlib.contextmanager
def both() -> Iterator[tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]]:
    """Install both within the block. At its end they must have no living objects and no misuses."""
    cuda, vulkan = fake_cuda.FakeCuda(), fake_vulkan.FakeVulkan([fake_vulkan.DISCRETE])
    with fake_cuda.installed(cuda), fake_vulkan.installed(vulkan):
        yield cuda, vulkan
    found = [str(misuse) for misuse in (*cuda.misuses, *vulkan.misuses)]
    assert not found, found
    assert not cuda.alive() and not vulkan.alive(), f"left: {cuda.alive()}, {vulkan.alive()}"
