"""B26–B35: security descriptors and inheritance."""

from __future__ import annotations

import subprocess

import pytest

import extmem
import extmem.process
from extmem import errors, raw, vk
from extmem.api import Device
from extmem.objects import Refused, Share
from extmem.testing.children import Peer
from extmem.vk import SecurityAttributes
from tests.behaviours.steps import (
    ALICE,
    BOB,
    CAROL,
    GENERIC_ALL,
    GENERIC_WRITE,
    KMT,
    PEER,
    READ,
    READ_CONTROL,
    READ_WRITE,
    W32,
    by_name,
    export,
    get,
    import_win32,
    kmt,
    model,
    nt,
    put,
)

RULE_657 = "VUID-VkExportMemoryWin32HandleInfoKHR-handleTypes-00657"
INHERITABLE = SecurityAttributes(None, True)


def test_B26_without_attributes_the_handle_is_not_inheritable_and_the_user_may_do_everything(
    device: Device, name: str
) -> None:
    with export(device, name=name, security=None) as memory, nt(device, memory) as handle:
        assert not handle.info.inherit
        with extmem.open_handle(name, GENERIC_ALL) as other:
            assert other.access == 0xF0001


def test_B26_the_default_security_is_for_the_creating_user_alone() -> None:
    manager = model()
    alice, bob = manager.attach(ALICE, 1), manager.attach(BOB, 2)
    _share(manager, alice, None)
    manager.open_handle(alice, "X", GENERIC_ALL)
    with pytest.raises(Refused):
        manager.open_handle(bob, "X", READ)


def test_B27_the_struct_is_ignored_without_export_info(name: str) -> None:
    info = vk.MemoryAllocateInfo(4096, 0, vk.ExportMemoryWin32HandleInfoKHR(None, READ_WRITE, name))
    with extmem.open_device(check="off") as device, device.allocate_memory(info), pytest.raises(FileNotFoundError):
        by_name(device, name)


def test_B27_a_device_that_checks_reports_it(device: Device, name: str) -> None:
    info = vk.MemoryAllocateInfo(4096, 0, vk.ExportMemoryWin32HandleInfoKHR(None, READ_WRITE, name))
    with pytest.raises(extmem.RuleViolation) as error:
        device.allocate_memory(info)
    assert error.value.vuids == (RULE_657,)


def _kmt_with_attributes(name: str) -> vk.MemoryAllocateInfo:
    return vk.MemoryAllocateInfo(
        4096, 0, vk.ExportMemoryAllocateInfo(KMT, vk.ExportMemoryWin32HandleInfoKHR(None, READ_WRITE, name))
    )


def test_B28_a_kmt_export_ignores_the_struct_and_cannot_be_named(name: str) -> None:
    with extmem.open_device(check="off") as device, device.allocate_memory(_kmt_with_attributes(name)) as memory:
        assert int(kmt(device, memory))
        with pytest.raises(FileNotFoundError):
            by_name(device, name)


def test_B28_a_device_that_checks_says_that_the_struct_is_for_nt_handles(device: Device, name: str) -> None:
    with pytest.raises(extmem.RuleViolation) as error:
        device.allocate_memory(_kmt_with_attributes(name))
    assert RULE_657 in error.value.vuids
    export(device, types=KMT).close()


def _child(**options: object) -> Peer:
    """A peer that inherits handles."""
    child = Peer(popen=extmem.process.Popen, **options)  # type: ignore[arg-type]  # passed through
    child(PEER + "\nfrom extmem import raw")
    return child


def test_B29_an_inheritable_export_reaches_the_child_under_the_same_number(device: Device, name: str) -> None:
    with export(device, name=name, security=INHERITABLE, access=GENERIC_ALL) as memory, nt(device, memory) as handle:
        put(memory, b"heir")
        assert handle.info.inherit
        with _child() as child:
            value = int(handle)
            assert child("memory = import_win32(device, raw.nt_handle(value))\nget(memory)", value=value) == b"heir"
            assert child("other = by_name(device, name)\nget(other)", name=name) == b"heir"


def test_B30_an_inherited_handle_keeps_value_flag_and_access(device: Device) -> None:
    with export(device, security=INHERITABLE, access=READ) as memory, nt(device, memory) as handle:
        with _child() as child:
            child("info = raw.nt_handle(value).info", value=int(handle))
            assert child("info.inherit, info.granted_access, info.object_id") == (
                True,
                handle.info.granted_access,
                handle.info.object_id,
            )


def test_B30_only_listed_handles_arrive_where_a_list_is_given(device: Device) -> None:
    with (
        export(device, security=INHERITABLE) as memory,
        nt(device, memory) as listed,
        listed.duplicate(inherit=True) as not_listed,
    ):
        with _child(handles=[listed]) as child:
            child("raw.nt_handle(value).take()", value=int(listed))
            assert child.fails("raw.nt_handle(value)", value=int(not_listed)).is_a(errors.InvalidHandleError)


def test_B30_inheritance_is_a_copy_that_the_parent_cannot_close(device: Device) -> None:
    memory = export(device, security=INHERITABLE)
    handle = nt(device, memory)
    put(memory, b"copy")
    with _child() as child:
        value = int(handle)
        handle.close()
        memory.close()
        assert child("memory = import_win32(device, raw.nt_handle(value))\nget(memory)", value=value) == b"copy"


def test_B30_a_second_generation_inherits_again(device: Device) -> None:
    with export(device, security=INHERITABLE) as memory, nt(device, memory) as handle:
        put(memory, b"2nd!")
        with _child() as child:
            child("import extmem.process\nfrom extmem.testing.children import Peer")
            child(f"grandchild = Peer(popen=extmem.process.Popen)\ngrandchild({PEER!r})")
            source = "from extmem import raw\nmemory = import_win32(device, raw.nt_handle(value))\nget(memory)"
            assert child("grandchild(source, value=value)", source=source, value=int(handle)) == b"2nd!"
            child("grandchild.close()")


def test_B31_inheritance_needs_the_flag_and_a_child_that_inherits(device: Device, name: str) -> None:
    with export(device, name=name, security=INHERITABLE) as memory, nt(device, memory) as flagged:
        with extmem.open_handle(name) as opened, flagged.duplicate() as plain, _child() as heir:
            assert not opened.info.inherit and not plain.info.inherit
            heir("raw.nt_handle(value).take()", value=int(flagged))
            for value in (int(opened), int(plain)):
                assert heir.fails("raw.nt_handle(value)", value=value).is_a(errors.InvalidHandleError)
        with Peer() as unrelated:  # CreateProcess(bInheritHandles=FALSE)
            unrelated(PEER + "\nfrom extmem import raw")
            assert unrelated.fails("raw.nt_handle(value)", value=int(flagged)).is_a(errors.InvalidHandleError)
        with extmem.open_handle(name, inherit=True) as asked:
            assert asked.info.inherit


@pytest.mark.parametrize("sddl", ["D:", "D:P", "D:(D;;GA;;;WD)"])
def test_B32_the_creators_first_handle_is_not_checked_and_later_opens_are(device: Device, name: str, sddl: str) -> None:
    with export(device, name=name, security=SecurityAttributes(sddl)) as memory, nt(device, memory) as handle:
        assert handle.access == 0x20001
        import_win32(device, handle).close()
        with pytest.raises(errors.AccessDeniedError) as error:
            extmem.open_handle(name, READ_WRITE)
        assert error.value.winerror == 5


def _share(manager: object, process: int, sddl: str | None) -> None:
    manager.export(  # type: ignore[attr-defined]  # an attribute of the model
        process, ((1, 1),), b"", share=Share.NT, name="X", access=GENERIC_ALL, sddl=sddl, inherit=False
    )


@pytest.mark.parametrize(
    ("sddl", "bob", "carol"),
    [
        ("D:NO_ACCESS_CONTROL", True, True),
        ("D:", False, False),
        ("D:(A;;GA;;;WD)", True, True),
        ("D:(A;IO;GA;;;WD)", False, False),
        ("D:(D;;GA;;;S-1-22-1-1001)(A;;GA;;;WD)", False, True),
        ("D:(A;;GA;;;WD)(D;;GA;;;S-1-22-1-1001)", True, True),
        ("D:(A;;GA;;;S-1-22-2-1000)", False, True),
    ],
)
def test_B33_the_dacl_is_walked_in_order(sddl: str, bob: bool, carol: bool) -> None:
    manager = model()
    alice = manager.attach(ALICE, 1)
    _share(manager, alice, sddl)
    for token, allowed in ((BOB, bob), (CAROL, carol)):
        process = manager.attach(token, token.uid)
        if allowed:
            manager.open_handle(process, "X", GENERIC_ALL)
        else:
            with pytest.raises(Refused):
                manager.open_handle(process, "X", READ)


def test_B33_the_owner_may_always_read_the_security(device: Device, name: str) -> None:
    with export(device, name=name, security=SecurityAttributes("D:")):
        with extmem.open_handle(name, READ_CONTROL) as handle:
            assert handle.access == READ_CONTROL
        with pytest.raises(errors.AccessDeniedError):
            extmem.open_handle(name, GENERIC_WRITE)


@pytest.mark.parametrize(
    "sddl", ["nonsense", "D:(A;;GA;;;)", "D:(A;;GA;;WD)", "D:(X;;GA;;;WD)", "D:(A;;GA;;;WD", "D:(A;;QQ;;;WD)"]
)
def test_B34_a_malformed_descriptor_is_refused_and_shares_nothing(device: Device, name: str, sddl: str) -> None:
    with pytest.raises(errors.ObjectManagerError) as error:
        export(device, name=name, security=SecurityAttributes(sddl))
    assert error.value.winerror == 1338
    with pytest.raises(FileNotFoundError):
        by_name(device, name)
    export(device, name=name, security=SecurityAttributes("D:(A;;GA;;;WD)")).close()


def test_B35_the_usual_recipe_of_applications_works(device: Device, name: str) -> None:
    recipe = SecurityAttributes("D:(A;;0x1fffff;;;WD)", True)
    with export(device, name=name, security=recipe, access=READ_WRITE) as memory, nt(device, memory) as handle:
        assert handle.info.inherit and handle.access == 0x20001
        put(memory, b"cuda")
        with by_name(device, name) as other, import_win32(device, handle) as again:
            assert get(other) == get(again) == b"cuda"


def test_B35_a_plain_popen_is_no_inheriting_child(device: Device) -> None:
    assert issubclass(extmem.process.Popen, subprocess.Popen)
    with export(device, types=W32, security=INHERITABLE) as memory, nt(device, memory) as handle:
        with raw.nt_handle(int(handle.duplicate().take())) as adopted:
            assert adopted.same_object(handle)
