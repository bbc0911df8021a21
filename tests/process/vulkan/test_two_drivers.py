"""Two drivers at once, Mesa's and SwiftShader: neither imports the other's memory; the error names both devices."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

import pytest

from extmem import vk
from extmem.api import Device, DeviceMemory
from extmem.devices import vulkan
from extmem.errors import RuleViolation
from extmem.testing.children import Peer
from tests import swiftshader
from tests.behaviours.steps import FD, KMT, W32, import_win32

SIZE = 4096
NAMES = {"mesa": "llvmpipe", "swiftshader": "SwiftShader"}
BOTH_WAYS = pytest.mark.parametrize(("ours", "theirs"), [("mesa", "swiftshader"), ("swiftshader", "mesa")])


def mesas() -> list[str]:
    """The files by which the loader finds Mesa's software driver."""
    return glob.glob("/usr/share/vulkan/icd.d/lvp_icd*.json") + glob.glob("/usr/local/share/vulkan/icd.d/lvp_icd*.json")


def device_of(word: str) -> Device:
    """Open the device of one of the two drivers."""
    for offer in vulkan.offers():
        device = Device(offer.open())
        if device.name.startswith(NAMES[word]):
            return device
        device.close()
    raise LookupError(word)


def attempts(device: Device, memory: DeviceMemory, numbered: DeviceMemory, name: str) -> dict[str, str]:
    """Import memory of another device in each way; return for each `taken`, or the broken rules and the message."""
    found = {}

    def attempt(what: str, call: object) -> None:
        try:
            call().close()  # type: ignore[operator]
        except RuleViolation as error:
            found[what] = " ".join([*error.vuids, str(error)])
        else:
            found[what] = "taken"

    size, index = memory.allocation_size, memory.memory_type_index
    with memory.export_handle(W32) as handle, memory.export_handle(FD) as fd:
        number = numbered.export_handle(KMT)
        attempt("open a name", lambda: device.open(name))
        attempt("open an NT handle", lambda: device.open(handle))
        attempt("import an NT handle", lambda: import_win32(device, handle, size=size, index=index))
        attempt("import a number", lambda: import_win32(device, number, kind=KMT, size=size, index=index))
        info = vk.ImportMemoryFdInfoKHR(FD, fd)
        attempt("import an fd", lambda: device.allocate_memory(vk.MemoryAllocateInfo(size, index, info)))
        if found["import an fd"] != "taken":
            os.fstat(int(fd))  # a refused import consumes nothing
    return found


def met(ours: str, theirs: str) -> dict[str, object]:
    """Return the results of one device's imports of the other's memory, and of memory of its own."""
    with device_of(ours) as device, device_of(theirs) as other:
        results: dict[str, object] = {"uuids": (device.uuid.hex(), other.uuid.hex())}
        for word, maker in (("others", other), ("own", device)):
            with maker.allocate(SIZE, name=word) as memory, maker.allocate(SIZE, handle_types=KMT) as numbered:
                memory.write(b"bytes")
                results[word] = attempts(device, memory, numbered, word)
                assert memory.read_bytes(0, 5) == b"bytes"
    return results


@pytest.fixture
def both() -> Iterator[Peer]:
    """A process that has both drivers."""
    if not swiftshader.installed():
        pytest.skip(swiftshader.MISSING)
    if not mesas():
        pytest.skip("no Vulkan device here: Mesa's software driver is not installed")
    drivers = os.pathsep.join([str(swiftshader.ICD), *mesas()])
    with Peer(env={"VK_DRIVER_FILES": drivers, "VK_ICD_FILENAMES": drivers}) as peer:
        peer("from tests.process.vulkan.test_two_drivers import met")
        yield peer


@BOTH_WAYS
def test_neither_takes_the_others_memory(both: Peer, ours: str, theirs: str) -> None:
    results = both(f"met({ours!r}, {theirs!r})")
    first, second = results["uuids"]
    assert first != second
    assert len(results["others"]) == 5
    for what, said in results["others"].items():
        assert "VUID-VkImportMemory" in said, f"{what}: {said}"
        if what != "import an fd":
            assert first in said.replace("-", "") and second in said.replace("-", ""), f"{what}: {said}"
    assert set(results["own"].values()) == {"taken"}, results["own"]


def test_a_device_is_chosen_by_its_uuid(both: Peer) -> None:
    """With two devices, memory that is opened without a device is opened on the one that made it."""
    both("import extmem; from tests.process.vulkan.test_two_drivers import device_of")
    for word in NAMES:
        name = both(
            f"with device_of({word!r}) as device, device.allocate(64, name='chosen') as memory:\n"
            "    with extmem.open('chosen') as opened: name = opened.device.name\n"
            "name"
        )
        assert name.startswith(NAMES[word])
