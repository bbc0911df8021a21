"""Which devices there are here, and choosing one of them.

Looking is cheap for the host device, and neither for Vulkan, whose loader loads every driver, nor for CUDA, which
starts its driver. So nobody is looked for that could not fit: whoever wants a device by kind gets it without the
others, and by UUID a GPU's Vulkan device is found before its CUDA device is looked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from extmem.devices import host
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from extmem.devices.backend import Backend, DeviceIdentity, Offer

__all__ = ["VARIABLE", "choose", "cuda_offers", "describe", "enumerate_offers"]

VARIABLE = "EXTMEM_DEVICE"
"""What a program gets that asks for no device in particular: a kind, a UUID, or a part of a name."""


def enumerate_offers() -> list[Offer]:
    """Every device of this machine, best first, none of them opened."""
    return sorted((offer for look in _LOOKS.values() for offer in look()), key=lambda offer: offer.rank)


def cuda_offers() -> list[Offer]:
    """The CUDA devices of this machine alone."""
    from extmem.devices import cuda

    return cuda.offers()


def _vulkan_offers() -> list[Offer]:
    from extmem.devices import vulkan

    return vulkan.offers()


def choose(
    *,
    kind: str | None = None,
    uuid: bytes | str | None = None,
    luid: bytes | None = None,
    name: str | None = None,
) -> Backend:
    """The best device that fits all that is asked for.

    kind: "host", "vulkan" or "cuda"; uuid: deviceUUID as 16 bytes or as text; luid: deviceLUID as 8 bytes, as
    Direct3D knows an adapter; name: part of the device's name, in any case.
    Where nothing is asked for, the environment's EXTMEM_DEVICE is.
    Errors: UnsupportedError that lists the devices there are; ValueError for text that is no UUID.
    """
    wanted = _uuid_bytes(uuid) if isinstance(uuid, str) else uuid
    why = ""
    if kind is None and wanted is None and luid is None and name is None and os.environ.get(VARIABLE):
        kind, wanted, name = _from_environment(os.environ[VARIABLE])
        why = f" ({VARIABLE}={os.environ[VARIABLE]})"
    if kind is not None or wanted is not None or luid is not None:
        # Asked for by what no other kind of device has, or the others need not be asked for.
        for known, look in _LOOKS.items():
            for offer in sorted(look(), key=lambda offer: offer.rank) if kind in (known, None) else []:
                if _fits(offer, kind, wanted, luid, name):
                    return offer.open()
    found = enumerate_offers()
    for offer in found:
        if _fits(offer, kind, wanted, luid, name):
            return offer.open()
    asked = [f"kind {kind!r}"] if kind is not None else []
    asked += [f"UUID {wanted.hex()}"] if wanted is not None else []
    asked += [f"LUID {luid.hex()}"] if luid is not None else []
    asked += [f"a name with {name!r}"] if name is not None else []
    have = [describe(offer) for offer in found]
    from extmem.devices import cuda, vulkan

    missing = [("Vulkan", vulkan.missing()), ("CUDA", cuda.missing())]
    raise UnsupportedError(
        f"no device here has {' and '.join(asked) or 'what is needed'}{why}; "
        + (f"there is: {'; '.join(have)}" if have else "there is none at all: the host device needs Linux or Windows")
        + "".join(f". {what} devices are not to be had: {why}" for what, why in missing if why),
        requires_one_of=have,
    )


def _from_environment(text: str) -> tuple[str | None, bytes | None, str | None]:
    if text in _LOOKS:
        return text, None, None
    try:
        return None, _uuid_bytes(text), None
    except ValueError:
        return None, None, text


def _uuid_bytes(text: str) -> bytes:
    from uuid import UUID

    return UUID(text).bytes


_LOOKS: dict[str, Callable[[], list[Offer]]] = {
    "host": lambda: host.offers(),
    "vulkan": lambda: _vulkan_offers(),
    "cuda": lambda: cuda_offers(),
}
"""In this order a device is looked for by its kind or UUID. What finds the devices of a kind is imported to look."""


def describe(device: Offer | Backend) -> str:
    """One line that says which device this is."""
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
