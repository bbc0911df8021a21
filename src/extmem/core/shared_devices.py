"""The devices that payloads are opened on where the program names none. Each lives as long as the process.

How this works. A device is opened when the first payload that is on it is opened, and kept by its UUID; a CUDA device,
for payloads that CUDA made, by its UUID and their producer. The devices are of the class `device_class`, which the
layer above sets: programs reach them through `DeviceMemory.device`. A forked child opens its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from extmem.core.device_state import DeviceState
from extmem.devices import select
from extmem.errors import UnsupportedError

__all__ = ["chosen_anew", "cuda_device", "device_for", "device_of", "open_devices"]

device_class: Any = None
"""The class of the devices: `extmem.Device`, set by the module that defines it."""
_shared: dict[bytes, DeviceState] = {}
_CUDA = b"cuda-vmm"
_parents: list[DeviceState] = []
"""In a forked child: its parent's devices, which must not be used, nor end before what is on them."""


def open_devices() -> list[DeviceState]:
    """The devices that were opened so far."""
    return list(_shared.values())


@lru_cache(maxsize=512)
def device_of(descriptor: bytes) -> DeviceState:
    """The device that a payload with this descriptor is on. Errors: DescriptorError, UnsupportedError."""
    from extmem.sharing.descriptor import Descriptor

    parsed = Descriptor.parse(descriptor)
    return device_for(parsed.device_uuid, parsed.producer)


def device_for(device_uuid: bytes | None, producer: str = "") -> DeviceState:
    """The device with this UUID. None: the host device, whose files alone describe themselves.

    producer: payloads that a CUDA device made are opened there; all others on the Vulkan device, where there is one.
    Errors: UnsupportedError where this machine does not have the device.
    """
    if device_uuid is None:
        device_uuid = next((uuid for uuid, shared in _shared.items() if shared.kind == "host"), None)
    key = (device_uuid or b"") + producer.encode()
    device = _shared.get(key) if key else None
    if device is None:
        try:
            kind = "cuda" if producer else "host" if device_uuid is None else None
            backend = select.choose(kind=kind, uuid=device_uuid)
        except UnsupportedError as error:
            present = (offer.identity for offer in select.enumerate_offers())
            here = ", ".join(f"{known.device_name} {known.device_uuid.hex()}" for known in present)
            raise UnsupportedError(
                f"the payload is on device {device_uuid.hex() if device_uuid else '?'}, not here (here: {here}); "
                "open it on the machine and boot that made it",
                requires_one_of=error.requires_one_of,
            ) from error
        device = _shared.setdefault(backend.identity.device_uuid + producer.encode(), device_class(backend))
    return device


def cuda_device(device_uuid: bytes) -> DeviceState | None:
    """The CUDA device of that GPU; None where CUDA does not have it."""
    known = _shared.get(device_uuid + _CUDA)
    if known is None and not any(offer.identity.device_uuid == device_uuid for offer in select.cuda_offers()):
        return None
    return known or device_for(device_uuid, _CUDA.decode())


@contextlib.contextmanager
def chosen_anew() -> Iterator[None]:
    """Within the block devices are chosen and opened anew, and at its end they are closed (for tests).

    Errors: HandleStateError at the end while memory of them is open.
    """
    before = dict(_shared)
    _shared.clear()
    device_of.cache_clear()
    try:
        yield
    finally:
        chosen = list(_shared.values())
        _shared.clear()
        _shared.update(before)
        device_of.cache_clear()
        with contextlib.ExitStack() as stack:
            for device in chosen:
                stack.callback(device.close)


def _begin_anew() -> None:
    """In a forked child: devices belong to the process that opened them."""
    _parents.extend(_shared.values())
    _shared.clear()
    device_of.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
