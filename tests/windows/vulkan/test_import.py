"""Imports by handle, by name and by number: what reaches the driver, and what is refused before."""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator

import msgspec
import pytest

import extmem
from extmem import errors, raw, vk
from extmem.api import Device
from extmem.handles import NtHandle
from extmem.handles._win32 import calls, sections
from extmem.manager import manager
from extmem.sharing.descriptor import Descriptor
from extmem.testing import fake_vulkan
from extmem.testing.children import Peer
from extmem.testing.fake_vulkan.win32 import make_texture, number_of
from tests.behaviours.steps import (
    ACCESS_DENIED,
    INVALID_HANDLE,
    KMT,
    NOT_FOUND,
    SIZE,
    TYPE_MISMATCH,
    W32,
    by_name,
    export,
    get,
    import_win32,
    kmt,
    nt,
    put,
)

HandleType = vk.ExternalMemoryHandleTypeFlagBits
D3D = [HandleType.D3D11_TEXTURE, HandleType.D3D11_TEXTURE_KMT, HandleType.D3D12_RESOURCE]
STRUCT = "VUID-VkImportMemoryWin32HandleInfoKHR-handleType"


@pytest.fixture
def foreign_handle(fake: fake_vulkan.FakeVulkan) -> Iterator[NtHandle]:
    """Memory that another Vulkan program exported: it has no description."""
    with NtHandle(make_texture(fake, int(W32), SIZE), manager()) as handle:
        yield handle


# Faults are reported before the driver is called, whatever its result would have been.


def handles() -> dict[str, tuple[int, int]]:
    """Bad handle values by what they are, and the status of each."""
    closed = calls.create_event("\\BaseNamedObjects\\extmem-closed", manual=True, signaled=False)
    calls.close_handle(closed)
    return {
        "closed": (closed, INVALID_HANDLE),
        "garbage": (0x1EAD_BEEC & 0x3FFF_FFFC, INVALID_HANDLE),
        "this process": (-1 % (1 << 64), INVALID_HANDLE),
        "this thread": (-2 % (1 << 64), INVALID_HANDLE),
        "a KMT number": (0x4000_1002, INVALID_HANDLE),
    }


@pytest.mark.parametrize("what", ["closed", "garbage", "this process", "this thread", "a KMT number"])
def test_a_handle_that_is_none_never_reaches_the_driver(
    device: Device, fake: fake_vulkan.FakeVulkan, what: str
) -> None:
    fake.manners.handle_errors = int(vk.Result.ERROR_OUT_OF_HOST_MEMORY)
    value, status = handles()[what]
    with pytest.raises(errors.ExtmemError) as caught:
        import_win32(device, value)
    if isinstance(caught.value, errors.ObjectManagerError):
        assert caught.value.ntstatus == status
    assert f"{STRUCT}-00661" in [violation.vuid for violation in caught.value.violations]  # type: ignore[attr-defined]
    assert "vkAllocateMemory" not in fake.calls and not fake.bad_imports
    with export(device) as memory, nt(device, memory) as handle:
        import_win32(device, handle).close()


@pytest.mark.parametrize("what", ["event", "file", "section", "thread"])
def test_an_object_of_another_type_never_reaches_the_driver(
    device: Device, fake: fake_vulkan.FakeVulkan, what: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import ctypes
    import msvcrt

    file = (tmp_path_factory.mktemp("kinds") / "file").open("wb")
    if what == "event":
        value = calls.create_event("\\BaseNamedObjects\\extmem-test-event", manual=True, signaled=False)
    elif what == "file":
        value = calls.duplicate(msvcrt.get_osfhandle(file.fileno()), options=calls.SAME_ACCESS)
    elif what == "section":
        value = sections.create(SIZE, None)
    else:
        value = calls.duplicate(ctypes.c_size_t(-2).value, options=calls.SAME_ACCESS)
    try:
        with pytest.raises(errors.ObjectTypeError) as caught:
            import_win32(device, value)
        assert caught.value.ntstatus == TYPE_MISMATCH and what in str(caught.value).lower()
        assert "vkAllocateMemory" not in fake.calls
    finally:
        calls.close_handle(value)
        file.close()


def test_a_name_that_is_nobodys_never_reaches_the_driver(
    device: Device, fake: fake_vulkan.FakeVulkan, name: str
) -> None:
    with pytest.raises(errors.NameNotFoundError) as caught:
        by_name(device, name)
    assert caught.value.ntstatus == NOT_FOUND and caught.value.winerror == 2
    assert "vkAllocateMemory" not in fake.calls
    with export(device, name=name):
        by_name(device, name).close()


def test_a_name_that_another_type_has_never_reaches_the_driver(device: Device, name: str) -> None:
    with mmap.mmap(-1, 4096, tagname=name), pytest.raises(errors.ObjectTypeError) as caught:
        by_name(device, name)
    assert caught.value.ntstatus == TYPE_MISMATCH


def test_a_handle_without_the_right_to_read_never_reaches_the_driver(
    device: Device, fake: fake_vulkan.FakeVulkan
) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        before = len(fake.calls)
        with handle.duplicate(access=0x1) as blind, pytest.raises(errors.AccessDeniedError) as caught:
            import_win32(device, blind)
        assert caught.value.ntstatus == ACCESS_DENIED and "vkAllocateMemory" not in fake.calls[before:]
        import_win32(device, handle).close()


def test_handle_and_name_together_and_neither_are_refused(device: Device, name: str) -> None:
    with export(device, name=name) as memory, nt(device, memory) as handle:
        with pytest.raises(errors.RuleViolation) as caught:
            import_win32(device, handle, name)
        assert "VUID-VkImportMemoryWin32HandleInfoKHR-handle-01441" in caught.value.vuids
        with pytest.raises(errors.RuleViolation):
            import_win32(device)
        with pytest.raises(errors.RuleViolation) as caught:
            import_win32(device, None, name, kind=KMT)
        assert f"{STRUCT}-01439" in caught.value.vuids


@pytest.mark.parametrize("result", ["ERROR_OUT_OF_HOST_MEMORY", "ERROR_INVALID_EXTERNAL_HANDLE"])
def test_what_the_driver_alone_refuses_is_reported_with_what_the_kernel_says(
    device: Device, fake: fake_vulkan.FakeVulkan, name: str, result: str
) -> None:
    with export(device, name=name) as memory, nt(device, memory) as handle:
        fake.fail(result=vk.Result[result], command="vkAllocateMemory")
        with pytest.raises(errors.DriverError, match=result) as caught:
            import_win32(device, handle)
        message = str(caught.value)
        assert (
            "an open DxgkSharedResource with READ_CONTROL" in message
            and name in message
            and "size, the memory" in message
        )
        import_win32(device, handle).close()


# What reaches the driver.


def test_an_import_by_name_says_the_name_and_one_by_handle_the_handle(device: Device, name: str) -> None:
    with export(device, name=name) as memory, nt(device, memory) as handle:
        put(memory, b"here")
        for one in (by_name(device, name), by_name(device, name.upper()), import_win32(device, handle)):
            with one:
                assert get(one) == b"here" and one.record.object_id == memory.record.object_id
        assert not handle.closed


def test_an_importer_keeps_the_name(device: Device, name: str) -> None:
    """B73, and G9 for an import by handle."""
    for again in range(2):
        memory = export(device, name=name)
        put(memory, b"kept")
        handle = nt(device, memory)
        imported = by_name(device, name) if again else import_win32(device, handle)
        memory.close()
        handle.close()
        with by_name(device, name) as other, extmem.open(name) as high_level:
            assert get(other) == get(high_level) == b"kept"
        imported.close()
        with pytest.raises(errors.NameNotFoundError):
            by_name(device, name)


def test_another_process_imports_by_name_by_handle_and_by_number(
    fake: fake_vulkan.FakeVulkan, device: Device, name: str
) -> None:
    steps = f"from tests.behaviours.steps import *\ndevice = {fake_vulkan.elsewhere(fake)}\nNone"
    with export(device, name=name) as memory, nt(device, memory) as handle, export(device, types=KMT) as numbered:
        put(memory, b"here")
        put(numbered, b"weak")
        with Peer() as peer:
            peer(steps)
            assert peer("get(by_name(device, name))", name=name) == b"here"
            value = handle.duplicate(into=peer.pid)
            assert (
                peer("handle = extmem.raw.nt_handle(value)\nget(import_win32(device, handle))", value=value) == b"here"
            )
            assert peer("get(extmem.open(handle))") == b"here"
            assert peer("get(import_win32(device, n, kind=KMT))", n=int(kmt(device, numbered))) == b"weak"
            peer("import gc\nhandle.close()\ngc.collect()\nNone")


# Memory that other programs made.


def test_what_nobody_describes_is_imported_word_for_word_and_opened_with_a_description(
    device: Device, foreign_handle: NtHandle, fake: fake_vulkan.FakeVulkan
) -> None:
    with import_win32(device, foreign_handle) as imported:
        assert imported.allocation_size == SIZE and get(imported, 1) == b"\xcd"
    with pytest.raises(errors.DescriptorError, match=r"raw\.import_payload") as caught:
        extmem.open(foreign_handle)
    assert "another program exported it" in str(caught.value)
    descriptor = Descriptor(int(W32), SIZE, device_uuid=device.uuid, driver_uuid=device.identity.driver_uuid)
    with raw.import_payload(device, foreign_handle, descriptor) as opened:
        assert opened.size == SIZE
        with raw.import_payload(device, foreign_handle, descriptor) as again:
            assert again.record.object_id == opened.record.object_id, "one object, however it is known"
    with pytest.raises(errors.RuleViolation) as refused:
        raw.import_payload(device, foreign_handle, Descriptor(int(W32), SIZE, device_uuid=bytes(16)))
    assert "VUID-VkImportMemoryWin32HandleInfoKHR-handle-00659" in refused.value.vuids


def test_what_nobody_describes_opens_by_its_very_name(fake: fake_vulkan.FakeVulkan, device: Device, name: str) -> None:
    with NtHandle(make_texture(fake, int(W32), SIZE, name=name), manager()):
        by_name(device, name.upper()).close()
        with pytest.raises(errors.DescriptorError, match="has no descriptor: another program"):
            extmem.open(name)
        with extmem.open_handle(name) as handle:
            assert handle.info.type_name == "DxgkSharedResource"


def test_a_size_that_nobody_knows_is_the_drivers_to_judge(
    device: Device, foreign_handle: NtHandle, fake: fake_vulkan.FakeVulkan
) -> None:
    with pytest.raises(errors.DriverError, match="INVALID_EXTERNAL_HANDLE"):
        import_win32(device, foreign_handle, size=2 * SIZE)
    import_win32(device, foreign_handle).close()


def test_a_gpus_memory_on_the_host_device_says_where_to_go(device: Device, foreign_handle: NtHandle) -> None:
    with extmem.open_device(kind="host") as host, pytest.raises(errors.ObjectTypeError, match="Vulkan device"):
        import_win32(host, foreign_handle)


@pytest.mark.parametrize("kind", D3D)
def test_a_texture_of_direct3d_is_imported_as_a_dedicated_image(
    fake: fake_vulkan.FakeVulkan, device: Device, foreign_handle: NtHandle, kind: vk.ExternalMemoryHandleTypeFlagBits
) -> None:
    info = vk.ImageCreateInfo(
        image_type=vk.ImageType.TYPE_2D,
        format=vk.Format.R8G8B8A8_UNORM,
        extent=vk.Extent3D(16, 16, 1),
        mip_levels=1,
        array_layers=1,
        samples=vk.SampleCountFlagBits.COUNT_1,
        tiling=vk.ImageTiling.OPTIMAL,
        usage=vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST,
        p_next=vk.ExternalMemoryImageCreateInfo(kind),
    )
    made = make_texture(fake, int(kind), SIZE)
    value = number_of(made) if kind == HandleType.D3D11_TEXTURE_KMT else made
    try:
        with device.create_image(info) as image:
            bits = device.get_memory_win32_handle_properties(kind, value).memory_type_bits
            assert bits == 1
            alone = vk.MemoryDedicatedAllocateInfo(image)
            size = image.requirements.size
            chain = vk.ImportMemoryWin32HandleInfoKHR(kind, value, None, alone)
            for stated in (0, 1 << 40):  # it is ignored
                with device.allocate_memory(vk.MemoryAllocateInfo(stated, 0, chain)) as memory:
                    assert memory.allocation_size == size
            with device.allocate_memory(vk.MemoryAllocateInfo(size, 0, chain)) as memory:
                device.bind_image_memory(image, memory)
            image.native.requirements = msgspec.structs.replace(image.requirements, size=0)  # it "has no meaning", too
            for stated, known in ((0, 1), (SIZE, SIZE)):
                with device.allocate_memory(vk.MemoryAllocateInfo(stated, 0, chain)) as memory:
                    assert memory.allocation_size == known
        with pytest.raises(errors.DriverError, match="0 bytes are to be imported"):
            import_win32(device, foreign_handle, size=0)
        with pytest.raises(errors.RuleViolation):
            import_win32(device, value, kind=kind, index=31)
    finally:
        calls.close_handle(made)


def test_a_heap_of_direct3d_is_imported_whole(fake: fake_vulkan.FakeVulkan, device: Device, name: str) -> None:
    kind = HandleType.D3D12_HEAP
    made = make_texture(fake, int(kind), 2 * SIZE, name=name)
    try:
        for memory in (
            import_win32(device, made, kind=kind, size=2 * SIZE),
            import_win32(device, None, name, kind=kind, size=2 * SIZE),
        ):
            memory.close()
    finally:
        calls.close_handle(made)


def test_handle_properties_are_never_asked_of_opaque_types_nor_of_bad_handles(
    fake: fake_vulkan.FakeVulkan, device: Device
) -> None:
    asked = "vkGetMemoryWin32HandlePropertiesKHR"
    with export(device) as memory, nt(device, memory) as handle:
        with pytest.raises(errors.RuleViolation) as caught:
            device.get_memory_win32_handle_properties(W32, handle)
        assert f"VUID-{asked}-handleType-00666" in caught.value.vuids
    with pytest.raises(errors.RuleViolation) as caught:
        device.get_memory_win32_handle_properties(HandleType.D3D11_TEXTURE, 0xBAD4)
    assert f"VUID-{asked}-handle-00665" in caught.value.vuids
    assert asked not in fake.calls


def test_a_driver_that_answers_with_handle_types_is_seen(fake: fake_vulkan.FakeVulkan, device: Device) -> None:
    fake.manners.answers_handle_types = True
    made = make_texture(fake, int(HandleType.D3D12_HEAP), SIZE)
    try:
        with pytest.raises(errors.DriverError, match="names no memory type"):
            device.get_memory_win32_handle_properties(HandleType.D3D12_HEAP, made)
        fake.manners.answers_handle_types = False
        assert device.get_memory_win32_handle_properties(HandleType.D3D12_HEAP, made).memory_type_bits == 1
    finally:
        calls.close_handle(made)


def test_imported_memory_is_exported_again_where_the_driver_reports_it(fake: fake_vulkan.FakeVulkan) -> None:
    again = tuple(
        dataclasses.replace(row, export_from_imported=row.handle_type) if row.handle_type == int(W32) else row
        for row in fake_vulkan.INTEGRATED.external
    )
    fake.gpus = [dataclasses.replace(fake_vulkan.INTEGRATED, external=again)]
    with extmem.open_device(kind="vulkan") as device, export(device) as memory, nt(device, memory) as handle:
        put(memory, b"here")
        chain = vk.ImportMemoryWin32HandleInfoKHR(W32, handle, None, vk.ExportMemoryAllocateInfo(W32))
        with device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, chain)) as imported, nt(device, imported) as second:
            assert fake.calls.count("vkGetMemoryWin32HandleKHR") == 2, "once for each memory"
            with import_win32(device, second) as third:
                assert get(third) == b"here"


def test_imported_memory_is_not_exported_again_where_the_driver_says_no(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle:
        chain = vk.ImportMemoryWin32HandleInfoKHR(W32, handle, None, vk.ExportMemoryAllocateInfo(W32))
        with pytest.raises(errors.RuleViolation) as caught:
            device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, chain))
        assert "VUID-VkExportMemoryAllocateInfo-handleTypes-09860" in caught.value.vuids
