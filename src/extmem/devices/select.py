"""The devices of this machine, and the choice of one.

Finding the host device is cheap. Finding Vulkan devices is not, since the loader loads every driver, and finding CUDA
devices is not, since it starts their driver. So devices that cannot fit are not enumerated: a device that is chosen by
its kind is found without the others, and a GPU's Vulkan device is found by its UUID before CUDA is started.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from extmem.devices import host
from extmem.errors import UnsupportedError
from extmem.owning import late_imports

if TYPE_CHECKING:
    from extmem.devices.backend import Backend, Offer
    from extmem.devices.types import DeviceIdentity

__all__ = ["VARIABLE", "choose", "cuda_offers", "describe", "enumerate_offers"]

VARIABLE = "EXTMEM_DEVICE"
"""The environment variable that chooses the default device: a kind, a UUID, or a part of a name."""


def enumerate_offers() -> list[Offer]:
    """Return every device of this machine, best first. None of them is opened."""
    return sorted((offer for find in _FINDERS.values() for offer in find()), key=lambda offer: offer.rank)


def cuda_offers() -> list[Offer]:
    """Return only the CUDA devices of this machine."""
    with late_imports():
        from extmem.devices import cuda

    return cuda.offers()


def _vulkan_offers() -> list[Offer]:
    with late_imports():
        from extmem.devices import vulkan

    return vulkan.offers()


def choose(
    *,
    kind: str | None = None,
    uuid: bytes | str | None = None,
    luid: bytes | None = None,
    name: str | None = None,
) -> Backend:
    """Open the best device that fits all arguments.

    kind: "host", "vulkan" or "cuda"; uuid: deviceUUID as 16 bytes or as text; luid: deviceLUID as 8 bytes, by which
    Direct3D identifies an adapter; name: part of the device's name, in any case.
    Without arguments, the environment variable EXTMEM_DEVICE is used.
    Errors: UnsupportedError that lists the devices of the machine; ValueError for text that is not a UUID, and for an
    empty name.
    """
    device_uuid = _uuid_bytes(uuid) if isinstance(uuid, str) else uuid
    why = ""
    if kind is None and device_uuid is None and luid is None and name is None and os.environ.get(VARIABLE):
        kind, device_uuid, name = _from_environment(os.environ[VARIABLE])
        why = f" ({VARIABLE}={os.environ[VARIABLE]})"
    if name is not None and not name.strip():
        raise ValueError(f"the device name {name!r} is empty, and would fit every device; give a part of a name{why}")
    if kind is not None or device_uuid is not None or luid is not None:
        # The devices of other kinds are enumerated only if none of this kind fits.
        for candidate_kind, find in _FINDERS.items():
            for offer in sorted(find(), key=lambda offer: offer.rank) if kind in (candidate_kind, None) else []:
                if _fits(offer, kind, device_uuid, luid, name):
                    return offer.open()
    offers = enumerate_offers()
    for offer in offers:
        if _fits(offer, kind, device_uuid, luid, name):
            return offer.open()
    conditions = [f"kind {kind!r}"] if kind is not None else []
    conditions += [f"UUID {device_uuid.hex()}"] if device_uuid is not None else []
    conditions += [f"LUID {luid.hex()}"] if luid is not None else []
    conditions += [f"a name with {name!r}"] if name is not None else []
    have = [describe(offer) for offer in offers]
    with late_imports():
        from extmem.devices import cuda, vulkan

    missing = [("Vulkan", vulkan.missing()), ("CUDA", cuda.missing())]
    raise UnsupportedError(
        f"no device here has {' and '.join(conditions) or 'what is needed'}{why}; "
        + (f"there is: {'; '.join(have)}" if have else "there is none at all: the host device needs Linux or Windows")
        + "".join(f". {what} devices are not to be had: {why}" for what, why in missing if why),
        requires_one_of=have,
    )


def _from_environment(text: str) -> tuple[str | None, bytes | None, str | None]:
    if text in _FINDERS:
        return text, None, None
    try:
        return None, _uuid_bytes(text), None
    except ValueError:
        return None, None, text


def _uuid_bytes(text: str) -> bytes:
    with late_imports():
        from uuid import UUID

    return UUID(text).bytes


_FINDERS: dict[str, Callable[[], list[Offer]]] = {
    "host": lambda: host.offers(),
    "vulkan": lambda: _vulkan_offers(),
    "cuda": lambda: cuda_offers(),
}
"""The kinds, in the order in which a device is searched by kind or UUID. Each function imports what it needs."""


def describe(device: Offer | Backend) -> str:
    """Return one line that identifies a device."""
    identity = device.identity
    return f"{device.kind} {identity.device_name!r}, UUID {identity.device_uuid.hex()}"


def _fits(offer: Offer, kind: str | None, uuid: bytes | None, luid: bytes | None, name: str | None) -> bool:
    identity: DeviceIdentity = offer.identity
    return (
        (kind is None or offer.kind == kind)
        and (uuid is None or identity.device_uuid == uuid)
        and (luid is None or identity.luid == luid)
        and (name is None or name.casefold() in identity.device_name.casefold())
    )
