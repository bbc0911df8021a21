"""The type checker visits every module, and accepts programs that use semaphores and fences as they are meant.

Also the modules that are checked only where a module of one system imports them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.tools import ROOT, SOURCE, reported_by_mypy

ONE_SYSTEM = [path for folder in ("broker", "manager/linux") for path in sorted((SOURCE / folder).glob("*.py"))]
"""The modules that `exclude` in pyproject.toml removes from those that mypy checks on both systems."""


@pytest.mark.slow("runs mypy on the whole library")
def test_a_fault_in_a_module_of_one_system_is_reported(tmp_path: Path) -> None:
    shadows = []
    for number, path in enumerate(ONE_SYSTEM):
        copy = tmp_path / f"{number}.py"
        copy.write_text(path.read_text(encoding="utf-8") + '\nplanted_fault: int = ""\n', encoding="utf-8")
        shadows += ["--shadow-file", str(path.relative_to(ROOT)), str(copy)]
    command = [sys.executable, "-m", "mypy", "--platform", "linux", "--cache-dir", str(tmp_path / "cache"), *shadows]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    reported = {line for line in result.stdout.splitlines() if "[assignment]" in line}
    names = {match[1] for line in reported if (match := re.match(r"(\S+?\.py):", line))}
    assert names == {str(path.relative_to(ROOT)) for path in ONE_SYSTEM}, result.stdout + result.stderr


PROGRAM = """
from typing import assert_type

import extmem
from extmem import vk

BITS, FENCES = vk.ExternalSemaphoreHandleTypeFlagBits, vk.ExternalFenceHandleTypeFlagBits


def several(t: extmem.Timeline, device: extmem.Device, memory: extmem.DeviceMemory) -> None:
    with extmem.open_timeline(t.export_handle()) as opened, extmem.open_timeline("name", device=device) as named:
        assert_type(opened, extmem.Timeline)
        extmem.wait_all([(opened, 1), (named, 2)], timeout=1)
        assert_type(extmem.wait_any([(opened, 1)]), int)
    extmem.open_timeline(t.export_handle(BITS.OPAQUE_FD)).close()
    with device.commands(wait=(t, 1), signal=[(t, 2)], fence=device.fence()) as commands:
        commands.fill_buffer(memory.buffer(), 0)
    with memory.access(queue=True, wait=t_and(t, 3), signal=(t, 4)):
        pass
    gone = t.peer_gone
    print(t.value, gone.pid if gone is not None else "")


def t_and(t: extmem.Timeline, value: int) -> tuple[extmem.Timeline, int]:
    return t, value


async def waits(t: extmem.Timeline) -> None:
    await t.wait_async(1, timeout=1)


def binary(device: extmem.Device) -> None:
    semaphore = device.create_semaphore(vk.SemaphoreCreateInfo(p_next=vk.ExportSemaphoreCreateInfo(BITS.OPAQUE_FD)))
    assert_type(semaphore.export_handle(BITS.OPAQUE_WIN32), extmem.NtHandle)
    assert_type(semaphore.export_handle(BITS.OPAQUE_WIN32_KMT), extmem.KmtHandle)
    fd = semaphore.export_handle(BITS.OPAQUE_FD)
    device.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(semaphore, 0, BITS.OPAQUE_FD, fd))
    fence = device.fence()
    device.import_fence_fd(vk.ImportFenceFdInfoKHR(fence, 0, FENCES.OPAQUE_FD, fence.export_handle(FENCES.OPAQUE_FD)))
    signaled = fence.export_handle(FENCES.SYNC_FD)
    assert_type(signaled, extmem.NtHandle | extmem.KmtHandle | extmem.FdHandle | int)
    device.queue_submit([vk.SubmitInfo(signal_semaphores=[semaphore])], fence)
    assert device.wait_for_fences([fence], 10**9)
"""
REFUSED = """
def refused(semaphore: extmem.Semaphore) -> None:
    extmem.open_timeline(semaphore.export_handle(BITS.SYNC_FD))
    extmem.open_timeline(7)
    extmem.wait_all([(semaphore, 1)])
"""
"""A handle may be -1; a number is not a handle; a binary semaphore has no value to wait for."""


@pytest.mark.linux_only("mypy is not installed in the test bed for Windows")
@pytest.mark.slow("mypy reads the library first")
def test_programs_with_timelines_pass_the_type_checker(tmp_path: Path) -> None:
    assert reported_by_mypy(tmp_path, PROGRAM) == ["Success: no issues found in 1 source file"]
    *found, total = reported_by_mypy(tmp_path, PROGRAM + REFUSED)
    expected = (
        'has incompatible type "NtHandle | KmtHandle | FdHandle | int"',
        'has incompatible type "int"',
        "List item 0",
    )
    for line, part in zip(found, expected, strict=True):
        assert part in line
    assert total.startswith("Found 3 errors in 1 file")
