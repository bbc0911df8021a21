"""Who the host device is: this machine, this boot.

The device UUID is a hash of the kernel's boot id, which is random at each boot: equal for every process on one running
kernel (containers of one machine included, which really can share memory), different everywhere else. Where /proc does
not offer it, the machine id keyed with the boot time takes its place, and where that is missing too, the UUID
is drawn once per process: then nothing of another process is taken for this device's. Neither id can be read back.
"""

from __future__ import annotations

import hashlib
import platform
import secrets
from functools import cache
from pathlib import Path

import extmem
from extmem.devices.base import DeviceIdentity

__all__ = ["FORMAT_VERSION", "device_uuid", "driver_uuid", "host_identity"]

FORMAT_VERSION = 1
"""Version of what host payloads look like (seals, trailer). Payloads of another version are another driver's."""


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(("extmem", *parts)).encode()).digest()[:16]


def device_uuid(root: Path = Path("/")) -> bytes:
    """16 bytes that say which machine and boot this is. `root` is where /proc and /etc are looked for."""
    boot = _read(root / "proc/sys/kernel/random/boot_id")
    if boot:
        return _digest("host device", boot)
    machine = _read(root / "etc/machine-id")
    started = next((line for line in _read(root / "proc/stat").splitlines() if line.startswith("btime ")), "")
    if machine and started:
        return _digest("host device", "machine", machine, started)
    return secrets.token_bytes(16)


def driver_uuid() -> bytes:
    """16 bytes that say which payload format this is."""
    return _digest("host payload format", str(FORMAT_VERSION))


@cache
def host_identity() -> DeviceIdentity:
    """The identity of this process's host device."""
    return DeviceIdentity(
        device_uuid=device_uuid(),
        driver_uuid=driver_uuid(),
        luid=None,
        node_mask=1,
        device_name=f"extmem host memory ({platform.system()} {platform.machine()})",
        driver_name="extmem",
        driver_version=extmem.__version__,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
