"""The driver's parameters of an export, the calls that it gets, and what programs get."""

from __future__ import annotations

import mmap

import pytest

import extmem
from extmem import errors, raw, vk
from extmem.api import Device
from extmem.handles._win32 import calls
from extmem.manager.windows.security_descriptors import security_descriptor
from extmem.testing import fake_vulkan
from tests.behaviours.steps import (
    COLLISION,
    GENERIC_ALL,
    KMT,
    READ,
    READ_WRITE,
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

GET = "vkGetMemoryWin32HandleKHR"
ONLY_OWNER = "D:(A;;GA;;;OW)"


def test_name_rights_and_security_reach_the_driver_as_they_were_given(
    device: Device, fake: fake_vulkan.FakeVulkan, name: str
) -> None:
    export(device, name=name, access=GENERIC_ALL, security=vk.SecurityAttributes(ONLY_OWNER, True)).close()
    share = fake.shares[-1]
    assert (share.name, share.access, share.attributes, share.inherit) == (name, GENERIC_ALL, True, True)
    assert share.sddl is not None and share.sddl.endswith(ONLY_OWNER)
    export(device, name=f"Local\\{name}", access=READ_WRITE).close()
    share = fake.shares[-1]
    assert (share.name, share.access, share.attributes, share.sddl) == (f"Local\\{name}", READ_WRITE, False, None)


def test_attributes_without_a_descriptor_are_attributes(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    export(device, security=vk.SecurityAttributes(None, True)).close()
    assert (fake.shares[-1].attributes, fake.shares[-1].sddl, fake.shares[-1].inherit) == (True, None, True)


def test_a_binary_descriptor_and_an_address_mean_the_same(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    with security_descriptor(ONLY_OWNER) as address:
        export(device, security=vk.SecurityAttributes(address)).close()
    assert fake.shares[-1].sddl is not None and fake.shares[-1].sddl.endswith(ONLY_OWNER)


def test_what_was_not_stated_is_not_stated_to_the_driver(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    info = vk.MemoryAllocateInfo(SIZE, 0, vk.ExportMemoryAllocateInfo(W32))
    with device.allocate_memory(info) as memory, nt(device, memory) as handle:
        assert not fake.shares[-1].stated
        assert handle.info.name == "" and handle.info.type_name == "DxgkSharedResource"


def test_a_typo_in_sddl_is_found_before_the_driver_is_asked(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    with pytest.raises(errors.SecurityDescriptorError, match="position 5"):
        export(device, security=vk.SecurityAttributes("D:(A;XX;GA;;;WD)"))
    assert "vkAllocateMemory" not in fake.calls
    export(device, security=vk.SecurityAttributes("D:(A;;GA;;;WD)")).close()


def test_the_driver_is_asked_once_for_each_memory(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    """VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00663: what programs get are duplicates."""
    with export(device) as memory:
        handles = [nt(device, memory), *(memory.export_handle(W32) for _ in range(3))]
        assert fake.calls.count(GET) == 1 and fake.shares[-1].given == 1
        assert len({int(handle) for handle in handles}) == 4
        assert fake.shares[-1].first not in {int(handle) for handle in handles}
        with pytest.raises(errors.RuleViolation) as caught:
            nt(device, memory)
        assert "VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00663" in caught.value.vuids
        for handle in handles:
            handle.close()


def test_asking_twice_would_be_found(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    """The test above can fail: a second call is a misuse."""
    with export(device) as memory:
        raw_memory = memory.record.allocation.live  # type: ignore[attr-defined]  # the Vulkan device's own
        device.backend.memories.get_handle(raw_memory, int(W32)).close()  # type: ignore[attr-defined]  # as above
        assert "is exported as NT handle again" in str(fake.misuses.pop())


@pytest.mark.parametrize("inherit", [False, True])
def test_handles_are_inherited_as_the_export_says(device: Device, fake: fake_vulkan.FakeVulkan, inherit: bool) -> None:
    with export(device, security=vk.SecurityAttributes(None, inherit)) as memory, nt(device, memory) as handle:
        assert handle.info.inherit is inherit
        assert calls.flags(fake.shares[-1].first) == 0, "what extmem keeps for itself is never inherited"


@pytest.mark.parametrize(("access", "granted"), [(READ_WRITE, 0x20001), (READ, 0x20000), (GENERIC_ALL, 0xF0001)])
def test_handles_have_the_rights_of_the_export(device: Device, access: int, granted: int) -> None:
    with export(device, access=access) as memory, nt(device, memory) as handle:
        assert handle.info.granted_access == granted
        with import_win32(device, handle) as imported:
            assert imported.read_only == (access == READ)


def test_a_kmt_number_is_the_drivers_and_nothing_is_closed(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    with export(device, types=KMT) as memory:
        put(memory, b"weak")
        number = kmt(device, memory)
        assert int(number) & 0xC000_003F == 0xC000_0002, "the driver's own, not one of extmem's"
        assert kmt(device, memory) == number
        with import_win32(device, number, kind=KMT) as imported, extmem.open(number) as opened:
            assert get(imported) == get(opened) == b"weak"
    with pytest.raises(errors.ExtmemError):
        extmem.open(number)
    with pytest.raises(errors.InvalidHandleError, match="it is dead"):
        import_win32(device, number, kind=KMT)
    fake.bad_imports.clear()


def test_a_kmt_number_outlives_its_exporter_while_it_is_imported(device: Device) -> None:
    memory = export(device, types=KMT)
    put(memory, b"weak")
    number = kmt(device, memory)
    with import_win32(device, number, kind=KMT) as imported:
        memory.close()
        with extmem.open(number) as opened:
            assert get(opened) == get(imported) == b"weak"


def test_nt_and_kmt_together_are_refused_as_the_driver_says(device: Device) -> None:
    with pytest.raises(errors.RuleViolation) as caught:
        export(device, types=W32 | KMT)
    assert "VUID-VkExportMemoryAllocateInfo-handleTypes-09860" in caught.value.vuids
    export(device, types=KMT).close()


# Names.


def test_a_taken_name_never_reaches_the_driver(device: Device, fake: fake_vulkan.FakeVulkan, name: str) -> None:
    with export(device, name=name):
        before = len(fake.shares)
        for taken in (name, name.upper(), f"Local\\{name}"):
            with pytest.raises(errors.NameTakenError) as caught:
                export(device, name=taken)
            assert (caught.value.ntstatus, caught.value.winerror) == (COLLISION, 183)
        assert len(fake.shares) == before
    export(device, name=name).close()


def test_a_name_of_another_type_never_reaches_the_driver(device: Device, name: str) -> None:
    with mmap.mmap(-1, 4096, tagname=name):
        with pytest.raises(errors.ObjectTypeError) as caught:
            export(device, name=name)
        assert caught.value.ntstatus == TYPE_MISMATCH
        with pytest.raises(errors.ExtmemError):
            by_name(device, name)
    export(device, name=name).close()


def test_a_name_taken_between_the_look_and_the_call_is_reported(
    device: Device, fake: fake_vulkan.FakeVulkan, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver may return any error then (OUT_OF_HOST_MEMORY, for example): extmem looks the name up once more."""
    from extmem.manager.windows import driver_memory

    fake.manners.handle_errors = int(vk.Result.ERROR_OUT_OF_HOST_MEMORY)
    looks: list[str] = []
    real = driver_memory.refuse_taken

    def late(asked: str) -> None:
        looks.append(asked)
        if len(looks) > 1:
            real(asked)

    with export(device, name=name):
        monkeypatch.setattr(driver_memory, "refuse_taken", late)
        with pytest.raises(errors.NameTakenError):
            export(device, name=name)
        assert looks == [name, name]


def test_a_host_payload_and_a_gpus_never_share_a_name(device: Device, name: str) -> None:
    with extmem.open_device(kind="host") as host:
        with host.allocate(64, name=name), pytest.raises(errors.NameTakenError):
            device.allocate(64, name=name)
        with device.allocate(64, name=name), pytest.raises(errors.NameTakenError):
            host.allocate(64, name=name)
        with device.allocate(64, name=name), extmem.open(name) as opened:
            assert opened.device.kind == "vulkan"


@pytest.mark.parametrize("bad", ["", "a\\b", "\\X", "X" * 261])
def test_names_that_are_none_are_refused_before_the_driver(
    device: Device, fake: fake_vulkan.FakeVulkan, bad: str
) -> None:
    with pytest.raises((errors.NameInvalidError, errors.NameNotFoundError)):
        export(device, name=bad)
    assert not fake.shares


# Names and handles of other programs: memory of the high-level API describes itself.


def test_a_bare_handle_of_high_level_memory_leads_to_its_description(
    device: Device, fake: fake_vulkan.FakeVulkan
) -> None:
    with device.allocate((3, 5), "uint16") as memory, memory.export_handle() as handle:
        assert handle.info.name == "", "the internal name is not shown"
        with raw.nt_handle(calls.duplicate(int(handle), options=calls.SAME_ACCESS)) as bare:
            with extmem.open(bare) as opened:
                assert opened.numpy().shape == (3, 5)
        assert fake.shares[-1].name is not None and len(fake.shares[-1].name) == 43


def test_a_name_resolves_while_a_handle_is_open_and_no_longer(device: Device, name: str) -> None:
    memory = device.allocate(64, name=name)
    handle = memory.export_handle()
    memory.write(b"kept")
    memory.close()
    with extmem.open(name) as opened:
        assert get(opened) == b"kept"
    with extmem.open_handle(name) as second:
        handle.close()
        with extmem.open(name) as opened:
            assert get(opened) == b"kept"
        assert second.info.granted_access == 0x20001
    with pytest.raises(errors.NameNotFoundError):
        extmem.open(name)


def test_a_read_only_share_is_opened_for_reading_alone(device: Device, name: str) -> None:
    with device.allocate(64, name=name, access=extmem.Access.READ) as memory:
        memory.write(b"mine")
        with extmem.open(name) as opened:
            assert opened.read_only and get(opened) == b"mine"
            with pytest.raises(errors.AccessDeniedError):
                opened.write(b"no")
        with pytest.raises(errors.AccessDeniedError):
            extmem.open(name, access=extmem.Access.READ_WRITE)


def test_a_driver_that_gives_null_is_distinguished(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    fake.manners.gives_null = True
    with device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0)) as memory:
        with pytest.raises(errors.UnsupportedError, match="gave no handle"):
            device.backend.memories.get_handle(memory.record.allocation.live, int(W32))  # type: ignore[attr-defined]  # its own
    assert "which it was not made for" in str(fake.misuses.pop())
