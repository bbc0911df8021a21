"""Names and numbers of GPU memory between their creation and their description, and in races for them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import extmem
from extmem import errors, vk
from extmem.api import Device
from extmem.core import opening
from extmem.handles._win32 import calls
from extmem.manager.windows import payloads
from extmem.objects.kmt import SLOTS
from extmem.testing import fake_vulkan
from extmem.testing.fake_vulkan.win32 import make_texture
from extmem.testing.waiting import wait_until
from tests.behaviours.steps import KMT, SIZE, W32, by_name, export, get, import_win32, kmt, put

HandleType = vk.ExternalMemoryHandleTypeFlagBits
OUT_OF_MEMORY = vk.Result.ERROR_OUT_OF_HOST_MEMORY


class Paused:
    """A wrapper of a function that waits until `go` is set."""

    def __init__(self, real: Callable[..., int]) -> None:
        self.real = real
        self.arrived, self.go = threading.Event(), threading.Event()

    def __call__(self, *args: object) -> int:
        self.arrived.set()
        assert self.go.wait(30)
        return self.real(*args)


@pytest.fixture
def reader(fake: fake_vulkan.FakeVulkan) -> Iterator[Device]:
    """Another device of the same GPU."""
    with extmem.open_device(kind="vulkan") as opened:
        yield opened


@pytest.fixture
def host() -> Iterator[Device]:
    """The host device."""
    with extmem.open_device(kind="host") as opened:
        yield opened


def test_a_name_that_is_not_described_yet_is_waited_for(
    device: Device, reader: Device, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused = Paused(payloads.create_companion)
    monkeypatch.setattr(payloads, "create_companion", paused)
    with ThreadPoolExecutor(2) as threads:
        exporting = threads.submit(device.allocate, SIZE, name=name)
        assert paused.arrived.wait(30)
        found = threads.submit(reader.open, name)
        paused.go.set()
        with exporting.result(30) as memory, found.result(30) as opened:
            memory.write(b"whole")
            assert opened.descriptor == memory.descriptor and opened.read_bytes(0, 5) == b"whole"


def test_a_name_that_nobody_describes_is_given_up(
    fake: fake_vulkan.FakeVulkan, reader: Device, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_PATIENCE", 0.05)
    made = make_texture(fake, int(W32), SIZE, name=name)
    try:
        with pytest.raises(errors.DescriptorError, match="has no descriptor: another program"):
            reader.open(name)
    finally:
        calls.close_handle(made)


def test_memory_that_goes_before_it_is_described_is_not_found(
    fake: fake_vulkan.FakeVulkan, reader: Device, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that waits does not keep the name."""
    monkeypatch.setattr(opening, "_PATIENCE", 30.0)
    made = make_texture(fake, int(W32), SIZE, name=name)
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(reader.open, name)
        wait_until(found.running, "it to look")
        calls.close_handle(made)
        with pytest.raises(errors.NameNotFoundError):
            found.result(30)


# Races for a name, which drivers report as lack of memory.


def test_a_race_that_was_lost_and_is_over_is_run_again(device: Device, fake: fake_vulkan.FakeVulkan, name: str) -> None:
    fake.fail(1, OUT_OF_MEMORY, command="vkAllocateMemory")
    with export(device, name=name) as memory:
        put(memory, b"\x07")
        assert get(memory, 1) == b"\x07"


def test_memory_that_lacks_each_time_is_lacking(device: Device, fake: fake_vulkan.FakeVulkan, name: str) -> None:
    for number in (1, 2, 3):
        fake.fail(number, OUT_OF_MEMORY, command="vkAllocateMemory")
    with pytest.raises(errors.OutOfMemoryError):
        export(device, name=name)
    export(device, name=name).close()


def test_memory_without_a_name_is_asked_for_once(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    fake.fail(1, OUT_OF_MEMORY, command="vkAllocateMemory")
    with pytest.raises(errors.OutOfMemoryError):
        export(device)


# Numbers.


@pytest.mark.parametrize("answer", [OUT_OF_MEMORY, vk.Result.ERROR_INVALID_EXTERNAL_HANDLE])
def test_a_number_that_leads_nowhere_is_reported_as_that(
    device: Device, fake: fake_vulkan.FakeVulkan, answer: vk.Result
) -> None:
    fake.fail(1, answer, command="vkAllocateMemory")
    with pytest.raises(errors.InvalidHandleError, match="dead, or another GPU's") as caught:
        import_win32(device, 0x4000_1F42, kind=KMT)
    assert [violation.vuid for violation in caught.value.violations] == [
        "VUID-VkImportMemoryWin32HandleInfoKHR-handleType-00661"
    ]


@pytest.fixture
def exports_again(fake: fake_vulkan.FakeVulkan) -> None:
    """The driver exports again what it has imported, as a number too."""
    both = int(W32 | KMT)
    fake.gpus = [
        dataclasses.replace(
            fake_vulkan.INTEGRATED,
            external=tuple(
                dataclasses.replace(external, export_from_imported=both, compatible=external.handle_type)
                for external in fake_vulkan.INTEGRATED.external
            ),
        )
    ]


@pytest.mark.usefixtures("exports_again")
def test_an_import_by_number_is_exported_by_that_number_again(device: Device, reader: Device) -> None:
    with export(device, types=KMT) as memory:
        put(memory, b"\x09")
        number = kmt(device, memory)
        again = vk.ImportMemoryWin32HandleInfoKHR(KMT, number, None, vk.ExportMemoryAllocateInfo(KMT))
        with reader.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, again)) as imported:
            assert int(kmt(reader, imported)) == int(number)
            assert get(imported, 1) == b"\x09"
        with extmem.open(number) as opened:
            assert get(opened, 1) == b"\x09"


def test_host_and_driver_do_not_give_the_same_number(
    device: Device, host: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    with export(device, types=KMT) as memory:
        number = int(kmt(device, memory))
        monkeypatch.setattr(payloads, "_next_slot", (number >> 6) % SLOTS)
        with export(host, types=KMT) as other:
            assert int(kmt(host, other)) != number
            put(other, b"\x03")
            with extmem.open(kmt(host, other)) as opened:
                assert get(opened, 1) == b"\x03"


# One name of two.


def test_a_gpus_memory_is_not_hidden_by_a_host_payload_of_its_name(
    fake: fake_vulkan.FakeVulkan, device: Device, host: Device, name: str
) -> None:
    with export(host, name=name, size=2 * SIZE) as hosted:
        put(hosted, b"\x01")
        made = make_texture(fake, int(W32), SIZE, name=name)
        try:
            with by_name(device, name) as imported:
                assert imported.allocation_size == SIZE
            with extmem.open(name) as opened:
                assert opened.size == 2 * SIZE and get(opened, 1) == b"\x01"
        finally:
            calls.close_handle(made)


def test_the_object_that_has_a_name_is_named(device: Device, host: Device, name: str) -> None:
    with export(host, name=name), pytest.raises(errors.NameTakenError, match=rf"extmem\.{name.upper()} exists"):
        export(device, name=name)
    with export(device, name=name), pytest.raises(errors.NameTakenError):
        export(device, name=name)
    with pytest.raises(errors.NameNotFoundError, match=rf"extmem\.{name.upper()}, and for a GPU's memory at .*{name}"):
        extmem.open(name)


def test_what_direct3d_makes_is_not_exported(fake: fake_vulkan.FakeVulkan) -> None:
    heap = int(HandleType.D3D12_HEAP)
    gives = fake_vulkan.External("buffer", heap, export_from_imported=heap, compatible=heap)
    others = (external for external in fake_vulkan.INTEGRATED.external if external.handle_type != heap)
    fake.gpus = [dataclasses.replace(fake_vulkan.INTEGRATED, external=(gives, *others))]
    with extmem.open_device(kind="vulkan") as device:
        with pytest.raises(errors.UnsupportedError, match="exports no D3D12_HEAP through extmem"):
            device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, vk.ExportMemoryAllocateInfo(HandleType.D3D12_HEAP)))
        assert "vkAllocateMemory" not in fake.calls
        export(device).close()
