"""Which devices there are here, and choosing one of them."""

from __future__ import annotations

import uuid as uuids
from typing import TYPE_CHECKING

from extmem.devices import host
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from extmem.devices.base import Driver

__all__ = ["choose", "describe", "enumerate_drivers"]


def enumerate_drivers() -> list[Driver]:
    """Every device of this machine, best first. The caller closes what it does not use."""
    return host.drivers()


def choose(*, kind: str | None = None, uuid: bytes | str | None = None, name: str | None = None) -> Driver:
    """The best device that fits all that is asked for.

    kind: "host", …; uuid: deviceUUID as 16 bytes or as text; name: part of the device's name, in any case.
    Errors: UnsupportedError that lists the devices there are; ValueError for text that is no UUID.
    """
    wanted = uuids.UUID(uuid).bytes if isinstance(uuid, str) else uuid
    found = enumerate_drivers()
    chosen = None
    for driver in found:
        if chosen is None and _fits(driver, kind, wanted, name):
            chosen = driver
    for driver in found:
        if driver is not chosen:
            driver.close()
    if chosen is None:
        asked = [f"kind {kind!r}"] if kind is not None else []
        asked += [f"UUID {wanted.hex()}"] if wanted is not None else []
        asked += [f"a name with {name!r}"] if name is not None else []
        have = [describe(driver) for driver in found]
        raise UnsupportedError(
            f"no device here has {' and '.join(asked) or 'what is needed'}; "
            + (f"there is: {'; '.join(have)}" if have else "there is none at all: the host device needs Linux"),
            requires_one_of=have,
        )
    return chosen


def describe(driver: Driver) -> str:
    """One line that says which device this is."""
    identity = driver.identity
    return f"{driver.kind} {identity.device_name!r}, UUID {identity.device_uuid.hex()}"


def _fits(driver: Driver, kind: str | None, uuid: bytes | None, name: str | None) -> bool:
    identity = driver.identity
    return (
        (kind is None or driver.kind == kind)
        and (uuid is None or identity.device_uuid == uuid)
        and (name is None or name.casefold() in identity.device_name.casefold())
    )
