"""Which devices there are here, and choosing one of them.

Looking is cheap for the host device and not for Vulkan, whose loader loads every driver: whoever wants the host device
by kind or UUID gets it without that.
"""

from __future__ import annotations

import os
import uuid as uuids
from typing import TYPE_CHECKING

from extmem.devices import host, vulkan
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from extmem.devices.base import DeviceIdentity, Driver, Offer

__all__ = ["VARIABLE", "choose", "describe", "enumerate_offers"]

VARIABLE = "EXTMEM_DEVICE"
"""What a program gets that asks for no device in particular: a kind, a UUID, or a part of a name."""


def enumerate_offers() -> list[Offer]:
    """Every device of this machine, best first, none of them opened."""
    return sorted([*host.offers(), *vulkan.offers()], key=lambda offer: offer.rank)


def choose(*, kind: str | None = None, uuid: bytes | str | None = None, name: str | None = None) -> Driver:
    """The best device that fits all that is asked for.

    kind: "host", "vulkan", …; uuid: deviceUUID as 16 bytes or as text; name: part of the device's name, in any case.
    Where nothing is asked for, the environment's EXTMEM_DEVICE is.
    Errors: UnsupportedError that lists the devices there are; ValueError for text that is no UUID.
    """
    wanted = uuids.UUID(uuid).bytes if isinstance(uuid, str) else uuid
    why = ""
    if kind is None and wanted is None and name is None and os.environ.get(VARIABLE):
        kind, wanted, name = _from_environment(os.environ[VARIABLE])
        why = f" ({VARIABLE}={os.environ[VARIABLE]})"
    for offer in host.offers():
        # Asked for by what no other device can have.
        if (kind == "host" or wanted is not None) and _fits(offer, kind, wanted, name):
            return offer.open()
    found = enumerate_offers()
    for offer in found:
        if _fits(offer, kind, wanted, name):
            return offer.open()
    asked = [f"kind {kind!r}"] if kind is not None else []
    asked += [f"UUID {wanted.hex()}"] if wanted is not None else []
    asked += [f"a name with {name!r}"] if name is not None else []
    have = [describe(offer) for offer in found]
    missing = vulkan.missing()
    raise UnsupportedError(
        f"no device here has {' and '.join(asked) or 'what is needed'}{why}; "
        + (f"there is: {'; '.join(have)}" if have else "there is none at all: the host device needs Linux")
        + (f". Vulkan devices are not to be had: {missing}" if missing else ""),
        requires_one_of=have,
    )


def _from_environment(text: str) -> tuple[str | None, bytes | None, str | None]:
    if text in ("host", "vulkan"):
        return text, None, None
    try:
        return None, uuids.UUID(text).bytes, None
    except ValueError:
        return None, None, text


def describe(device: Offer | Driver) -> str:
    """One line that says which device this is."""
    identity = device.identity
    return f"{device.kind} {identity.device_name!r}, UUID {identity.device_uuid.hex()}"


def _fits(offer: Offer, kind: str | None, uuid: bytes | None, name: str | None) -> bool:
    identity: DeviceIdentity = offer.identity
    return (
        (kind is None or offer.kind == kind)
        and (uuid is None or identity.device_uuid == uuid)
        and (name is None or name.casefold() in identity.device_name.casefold())
    )
