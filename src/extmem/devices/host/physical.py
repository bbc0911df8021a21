"""The identity of the host device: this machine, this boot.

The device UUID is a hash of the kernel's boot id, which is random at each boot: equal for every process on one running
kernel (including containers of one machine, which can share memory), different everywhere else. Without a boot id in
/proc, it is a hash of the machine id and the boot time; without these, a random number for each process, so that no
payload of another process is taken for this device's. On Windows it is a hash of the machine's GUID, the number of the
boot, and a cookie that the kernel draws at each boot. The hashed values cannot be read back.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from typing import TYPE_CHECKING

import extmem
from extmem.devices.host import system
from extmem.devices.types import DeviceIdentity
from extmem.owning import late_imports

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FORMAT_VERSION", "device_uuid", "driver_uuid", "host_identity"]

FORMAT_VERSION = 1
"""Version of the format of host payloads (seals, trailer). Payloads of another version have another driver UUID."""


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(("extmem", *parts)).encode()).digest()[:16]


def device_uuid(root: Path | str = "/") -> bytes:
    """16 bytes that identify this machine and boot. root: the directory of /proc and /etc."""
    words = system.boot(root)
    return _digest("host device", *words) if words else os.urandom(16)


def driver_uuid() -> bytes:
    """16 bytes that identify the payload format."""
    return _digest("host payload format", str(FORMAT_VERSION))


def _system_and_machine() -> str:
    """`Linux x86_64`, `Windows AMD64`."""
    if hasattr(os, "uname"):
        system_name = os.uname()
        return f"{system_name.sysname} {system_name.machine}"
    with late_imports():
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
