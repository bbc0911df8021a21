"""A name for a part of a payload."""

from __future__ import annotations

import pytest

import extmem
from extmem.testing import leaks
from tests import cuda_bed


@pytest.mark.windows_only("on Linux a part can have a name of its own")
@pytest.mark.parametrize("kind", ["host", "cuda"])
def test_a_part_has_no_name_of_its_own_on_windows(kind: str) -> None:
    with cuda_bed.both(), leaks.no_leaks(), extmem.open_device(kind=kind) as device, device.allocate(4096) as memory:
        with pytest.raises(extmem.UnsupportedError, match=r"as 'part'.*extmem\.open\(name\)"):
            memory[1:].share("part")
        with pytest.raises(extmem.NameNotFoundError):
            extmem.open("part")


@pytest.mark.parametrize("kind", [pytest.param("host", marks=pytest.mark.linux_only("see the next test")), "cuda"])
def test_a_part_is_shared_without_a_name(kind: str) -> None:
    with cuda_bed.both(), leaks.no_leaks(), extmem.open_device(kind=kind) as device, device.allocate(4096) as memory:
        memory.fill(7)
        with memory[1:].share() as shared:
            assert shared.size == 4095 and set(shared.read_bytes()) == {7}


@pytest.mark.windows_only("on Linux a part can have a description of its own")
def test_memory_of_the_host_keeps_its_description_on_windows() -> None:
    with leaks.no_leaks(), extmem.open_device(kind="host") as device, device.allocate(4096) as memory:
        memory.fill(7)
        with pytest.raises(extmem.UnsupportedError, match="a part of it cannot be shared; .*copy=True"):
            memory[1:].share()
        with extmem.share(memory[1:], copy=True) as copied:
            assert copied.size == 4095 and copied.copied and set(copied.read_bytes()) == {7}
