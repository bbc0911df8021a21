"""A GPU as CUDA and Vulkan see it, both drivers scripted: what tests of the CUDA device run on without one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from extmem.testing import fake_cuda, fake_vulkan

__all__ = ["both"]


@contextlib.contextmanager
def both() -> Iterator[tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]]:
    """Within the block both are installed. They must be left as they were, and never misused."""
    cuda, vulkan = fake_cuda.FakeCuda(), fake_vulkan.FakeVulkan([fake_vulkan.DISCRETE])
    with fake_cuda.installed(cuda), fake_vulkan.installed(vulkan):
        yield cuda, vulkan
    found = [str(misuse) for misuse in (*cuda.misuses, *vulkan.misuses)]
    assert not found
    assert not cuda.alive() and not vulkan.alive(), f"left: {cuda.alive()}, {vulkan.alive()}"
