"""Invariant: a memory file with a changed last page, size or seals is refused, or has a valid descriptor. Linux."""

from __future__ import annotations

import fcntl
import os
import random

from extmem import vk
from extmem.devices.host import memfd, trailer
from extmem.devices.host.backend import HostBackend
from extmem.devices.types import ImportRequest
from extmem.errors import DriverError
from extmem.sharing.limits import DESCRIPTOR_LIMIT
from fuzz import fuzz_descriptor

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
_BACKEND = HostBackend()


def check(rng: random.Random, seeds: list[bytes]) -> str:
    """Check the invariant of fuzz_descriptor with a memory file whose last page, size or seals were changed."""
    if rng.random() < 0.5:
        frame = fuzz_descriptor.spoil_bytes(rng, trailer.pack(rng.choice(seeds)))
    else:
        # A hostile exporter writes a valid checksum.
        frame = trailer.pack(fuzz_descriptor.spoil_values(rng, rng.choice(seeds))[:DESCRIPTOR_LIMIT])
    pages = rng.choice((0, 1, 2, 2, 2, 5))
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, pages * memfd.PAGE + rng.choice((0, 0, 0, 1, -1 if pages else 0)))
        if pages:
            os.pwrite(fd, frame[: memfd.PAGE], (pages - 1) * memfd.PAGE)
        seals = rng.choice((memfd.SEALS, memfd.SEALS, fcntl.F_SEAL_SHRINK, 0))
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        facts = _BACKEND.examine_fd(fd, FD)
        assert facts.valid == (seals == memfd.SEALS), facts
        capacity = facts.capacity or 0
        assert capacity <= facts.size
        if facts.valid:
            assert bool(facts.descriptor) != bool(facts.descriptor_problem), facts
        size = max(1, rng.choice((1, memfd.PAGE, pages * memfd.PAGE, 1 << 40)))
        try:
            imported = _BACKEND.import_fd(ImportRequest(facts, size, 0))
        except DriverError:
            assert not facts.valid or size > capacity
            return "refused"
        assert facts.valid and size <= capacity
        imported.close()
        return fuzz_descriptor.check(facts.descriptor) if facts.descriptor else "refused"
    finally:
        os.close(fd)
