"""The demo on the Vulkan device, from its first line to its last."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from extmem.api import Device
from extmem.testing.children import Child
from extmem.testing.runtime import Runtime


@pytest.mark.linux_only("on Windows a scripted driver stands in, whose objects the kernel does not list")
def test_demo_on_the_vulkan_device(device: Device, own_runtime: Runtime, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "extmem", "demo", "--frames", "4", "--out", str(tmp_path / "demo.png")]
    with Child(command, env={**own_runtime.environment, "EXTMEM_DEVICE": "vulkan"}) as child:
        child.wait(deadline=60)
        output = child.output
    assert f"Device: {device.name}" in output
    assert "Left behind: 0 payloads, 0 names" in output
    assert (tmp_path / "demo.png").stat().st_size > 1000
