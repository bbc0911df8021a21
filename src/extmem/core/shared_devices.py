"""The devices on which payloads are opened if the program does not specify one. Each is open until the process ends.

How this works. A device is opened when the first payload that is on it is opened, and kept by its UUID; a CUDA device,
for payloads that CUDA made, by its UUID and their producer. The devices are of the class `device_class`, which the
layer above sets: programs get them from `DeviceMemory.device`. A forked child opens its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from extmem.core.device_state import DeviceState
from extmem.devices import host, select
from extmem.errors import UnsupportedError
from extmem.owning import Lock, late_imports

if TYPE_CHECKING:
    from extmem.devices.backend import Backend

__all__ = ["cuda_device", "device_for", "device_of", "device_of_kind", "devices_by_key", "fresh_devices"]

device_class: Any = None
"""The class of the devices: `extmem.Device`, set by the module that defines it."""
devices_by_key: dict[bytes, DeviceState] = {}
"""The devices that are open, by UUID and producer."""
_CUDA = b"cuda-vmm"


class _State:
    """What a forked child has anew."""

    def __init__(self) -> None:
        self.opening = Lock(reentrant=True)
        """Held while a device is looked up and, if it is not open yet, opened: threads open one."""


_state = _State()
_parents: list[DeviceState] = []
"""In a forked child: the devices of its parent. They must not be used, and must not end before the objects on them."""


@lru_cache(maxsize=512)
def device_of(descriptor: bytes) -> DeviceState:
    """Return the device that a payload with this descriptor is on. Errors: DescriptorError, UnsupportedError."""
    with late_imports():
        from extmem.sharing.descriptor import Descriptor

    parsed = Descriptor.parse(descriptor)
    uuid = parsed.device_uuid
    if uuid is None or parsed.producer or uuid in devices_by_key or _is_host(uuid):
        return device_for(uuid, parsed.producer)
    with _state.opening:
        if uuid not in devices_by_key:
            with late_imports():
                from extmem.core.deferred import DeferredBackend

            later = DeferredBackend("vulkan", uuid, parsed.device_name, partial(_open, None, uuid))
            devices_by_key[uuid] = device_class(later)
        return devices_by_key[uuid]


def _is_host(uuid: bytes) -> bool:
    return any(offer.identity.device_uuid == uuid for offer in host.offers())


def device_for(device_uuid: bytes | None, producer: str = "") -> DeviceState:
    """Return the device with this UUID. None: the host device, the only one whose files contain a descriptor.

    producer: that of a payload of a CUDA device, which is opened on that device; empty for the Vulkan device, if there
        is one, and for the host device.
    Errors: UnsupportedError if this machine does not have the device.
    """
    if device_uuid is None:
        device_uuid = next((uuid for uuid, device in devices_by_key.items() if device.kind == "host"), None)
    key = (device_uuid or b"") + producer.encode()
    device = devices_by_key.get(key) if key else None
    if device is None:
        with _state.opening:
            device = devices_by_key.get(key) if key else None
            if device is None:
                backend = _open("cuda" if producer else "host" if device_uuid is None else None, device_uuid)
                device = device_class(backend)
                devices_by_key[backend.identity.device_uuid + producer.encode()] = device
    return device


def device_of_kind(kind: str, descriptor: bytes | None) -> DeviceState:
    """Return the device of that kind ("host", "vulkan", "cuda") for a payload: the one with the same GPU.

    descriptor: that of the payload. None, or a payload of the host: the best device of that kind.
    Errors: UnsupportedError if this machine has none, and for GPU memory on the host device; ValueError for other text.
    """
    if kind not in ("host", "vulkan", "cuda"):
        raise ValueError(f'kind is {kind!r}; give "host", "vulkan" or "cuda", or None for the device of the payload')
    parsed = None
    if descriptor is not None:
        with late_imports():
            from extmem.sharing.descriptor import Descriptor

        parsed = Descriptor.parse(descriptor)
    uuid = parsed.device_uuid if parsed is not None else None
    if uuid is not None and _is_host(uuid):
        uuid = None
    if kind == "host":
        if parsed is not None and uuid is not None:
            raise UnsupportedError(
                f"the payload is memory of {parsed.device_name!r}, and the host device opens payloads of the host "
                "alone; omit kind=, or pass copy=True, which copies it to the host",
                requires_one_of=["the payload's own device", "copy=True"],
            )
        return device_for(None)
    with _state.opening:
        for device in devices_by_key.values():
            if device.kind == kind and uuid in (None, device.uuid):
                return device
        backend = select.choose(kind=kind, uuid=uuid)
        key = backend.identity.device_uuid + (_CUDA if kind == "cuda" else b"")
        devices_by_key[key] = device_class(backend)
        return devices_by_key[key]


def _open(kind: str | None, device_uuid: bytes | None) -> Backend:
    try:
        return select.choose(kind=kind, uuid=device_uuid)
    except UnsupportedError as error:
        present = (offer.identity for offer in select.enumerate_offers())
        names = ", ".join(f"{identity.device_name} {identity.device_uuid.hex()}" for identity in present)
        raise UnsupportedError(
            f"the payload is on device {device_uuid.hex() if device_uuid else '?'}, which this machine does not "
            f"have (it has: {names}); open it on the machine and in the boot session in which it was made",
            requires_one_of=error.requires_one_of,
        ) from error


def cuda_device(device_uuid: bytes) -> DeviceState | None:
    """Return the CUDA device of that GPU; None if CUDA does not have it."""
    device = devices_by_key.get(device_uuid + _CUDA)
    if device is None and any(offer.identity.device_uuid == device_uuid for offer in select.cuda_offers()):
        device = device_for(device_uuid, _CUDA.decode())
    return device


@contextlib.contextmanager
def fresh_devices() -> Iterator[None]:
    """Within the block, choose and open devices anew; close them at its end (for tests).

    Errors: HandleStateError at the end if memory of them is open.
    """
    before = dict(devices_by_key)
    devices_by_key.clear()
    device_of.cache_clear()
    try:
        yield
    finally:
        opened = list(devices_by_key.values())
        devices_by_key.clear()
        devices_by_key.update(before)
        device_of.cache_clear()
        with contextlib.ExitStack() as stack:
            for device in opened:
                stack.callback(device.close)


def _forget_devices() -> None:
    """In a forked child, forget the parent's devices: a device belongs to the process that opened it."""
    _state.opening = Lock(reentrant=True)
    _parents.extend(devices_by_key.values())
    devices_by_key.clear()
    device_of.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_devices)
