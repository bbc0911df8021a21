"""Who the host device is: this machine, this boot.

The device UUID is a hash of the kernel's boot id, which is random at each boot: equal for every process on one running
kernel (containers of one machine included, which really can share memory), different everywhere else. Where /proc does
not offer it, the machine id keyed with the boot time takes its place, and where that is missing too, the UUID
is drawn once per process: then nothing of another process is taken for this device's. On Windows it is the machine's
GUID with the number of the boot and a cookie that the kernel draws at each. None of them can be read back.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from typing import TYPE_CHECKING

import extmem
from extmem.devices.backend import DeviceIdentity
from extmem.devices.host import system

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FORMAT_VERSION", "device_uuid", "driver_uuid", "host_identity"]

FORMAT_VERSION = 1
"""Version of what host payloads look like (seals, trailer). Payloads of another version are another driver's."""


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(("extmem", *parts)).encode()).digest()[:16]


def device_uuid(root: Path | str = "/") -> bytes:
    """16 bytes that say which machine and boot this is. `root` is where /proc and /etc are looked for."""
    words = system.boot(root)
    return _digest("host device", *words) if words else os.urandom(16)


def driver_uuid() -> bytes:
    """16 bytes that say which payload format this is."""
    return _digest("host payload format", str(FORMAT_VERSION))


def _system_and_machine() -> str:
    """`Linux x86_64`, `Windows AMD64`."""
    if hasattr(os, "uname"):
        told = os.uname()
        return f"{told.sysname} {told.machine}"
    import platform

    return f"{platform.system()} {platform.machine()}"


@cache
def host_identity() -> DeviceIdentity:
    """The identity of this process's host device."""
    return DeviceIdentity(
        device_uuid=device_uuid(),
        driver_uuid=driver_uuid(),
        luid=None,
        node_mask=1,
        device_name=f"extmem host memory ({_system_and_machine()})",
        driver_name="extmem",
        driver_version=extmem.__version__,
    )
