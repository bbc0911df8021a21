"""Semaphores and fences in the kernel's namespace: names, types, rights, security, numbers, tickets, the snapshot."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator

import pytest

import extmem
from extmem import errors, vk
from extmem.api import Device
from extmem.handles import KmtHandle, NtHandle
from extmem.handles._win32 import calls, waitables
from extmem.handles._win32.calls import StatusError
from extmem.manager import manager
from extmem.manager.windows.security_descriptors import user_sid
from extmem.sharing.kinds import ObjectKind
from extmem.testing.children import Peer
from tests.windows.sync_steps import KINDS, PEER, WAIT_ALONE, create, handle_of, import_into, is_signaled, signal

ACCESS_DENIED, INVALID_PARAMETER, TYPE_MISMATCH = 0xC000_0022, 0xC000_000D, 0xC000_0024


@pytest.fixture
def device() -> Iterator[Device]:
    """The host device."""
    with extmem.open_device(kind="host") as opened:
        yield opened


def test_a_name_leads_to_the_payload_in_any_case(device: Device, peer: Peer, name: str) -> None:
    peer(PEER)
    for kind in KINDS:
        with create(device, kind, name=name) as made:
            peer("other = import_into(device, kind, name=name.swapcase())", kind=kind, name=name)
            assert not is_signaled(device, made)
            peer("signal(device, other)")
            assert is_signaled(device, made)
            peer("other.close()")
        with pytest.raises(errors.NameNotFoundError):
            import_into(device, kind, name=name)


@pytest.mark.parametrize("kind", [*KINDS, "memory"])
@pytest.mark.parametrize("wanted", [*KINDS, "memory"])
def test_a_name_or_handle_of_another_type_is_a_type_mismatch(device: Device, name: str, kind: str, wanted: str) -> None:
    """S26; a fence has the type name of a semaphore, and is told apart by its kind."""
    if kind == "memory":
        made = device.allocate(4096, name=name)
        handle = made.export_handle(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32)
    else:
        made = create(device, kind, name=name)
        handle = handle_of(device, made)
    families = {"timeline": "semaphore", "binary": "semaphore"}
    with made, handle:
        for source in ({"name": name}, {"handle": handle}):
            if families.get(kind, kind) == families.get(wanted, wanted):
                continue
            with pytest.raises(errors.ObjectTypeError) as caught:
                if wanted == "memory":
                    extmem.open(name if "name" in source else handle, device=device)
                else:
                    import_into(device, wanted, **source)  # type: ignore[arg-type]  # one of the two
            assert caught.value.ntstatus == TYPE_MISMATCH
        if kind == wanted and kind != "memory":
            import_into(device, wanted, name=name).close()
            import_into(device, wanted, handle).close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_taken_name_is_refused_whatever_has_it(device: Device, name: str, kind: str) -> None:
    with create(device, kind, name=name):
        for other in KINDS:
            with pytest.raises((errors.NameTakenError, errors.ObjectTypeError)):
                create(device, other, name=name.upper())
        with pytest.raises((errors.NameTakenError, errors.ObjectTypeError)):
            device.allocate(4096, name=name)
    create(device, kind, name=name).close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_refuses_a_signal_without_the_right(device: Device, name: str, kind: str) -> None:
    """S23: 0x1 to wait, 0x2 to signal; GENERIC_READ is to wait alone."""
    with create(device, kind, name=name) as made:
        value = manager().open_handle(name, WAIT_ALONE)
        try:
            assert manager().info(value).granted_access == 0x2_0001
            with import_into(device, kind, value) as waiter:
                with pytest.raises(errors.AccessDeniedError):
                    signal(device, waiter)
                if kind != "timeline":
                    with pytest.raises(StatusError):  # not the library alone: the kernel
                        (waitables.set_event if kind == "fence" else waitables.release)(value)
                signal(device, made)
                assert is_signaled(device, waiter)
        finally:
            manager().close(value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rights", ["GR", "0x20001"])
def test_security_is_about_the_rights_of_semaphores(device: Device, name: str, kind: str, rights: str) -> None:
    """Whatever kernel object stands for them: an event that its security lets be queried could not be waited for."""
    sid = user_sid()
    security = vk.SecurityAttributes(f"D:(A;;{rights};;;OW)(A;;{rights};;;{sid})")
    with create(device, kind, name=name, security=security):
        with pytest.raises(errors.AccessDeniedError):
            manager().open_handle(name, 0x2)
        with import_into(device, kind, name=name) as waiter:
            assert not is_signaled(device, waiter)
            with pytest.raises(errors.AccessDeniedError):
                signal(device, waiter)


def test_a_number_leads_to_the_payload_and_ends_with_it(device: Device, peer: Peer) -> None:
    peer(PEER)
    for kind in ("binary", "fence"):
        with create(device, kind, types=0x4) as made:
            number = handle_of(device, made, 0x4)
            assert isinstance(number, KmtHandle)
            peer("other = import_into(device, kind, number, bit=4)", kind=kind, number=int(number))
            peer("signal(device, other)")
            assert is_signaled(device, made)
            for wanted, other in ((ObjectKind.SEMAPHORE, "fence"), (ObjectKind.FENCE, "binary")):
                if kind == other:
                    with pytest.raises(errors.InvalidHandleError) as caught:
                        manager().import_by_kmt(int(number), object_kind=wanted)
                    assert caught.value.ntstatus == INVALID_PARAMETER
            with pytest.raises(errors.InvalidHandleError):
                manager().import_by_kmt(int(number))
            peer("other.close()")
        assert not manager().kmt_alive(int(number))


def test_a_timeline_has_no_number(device: Device) -> None:
    """S63: drivers of Windows crash if one is asked for."""
    with pytest.raises((errors.RuleViolation, errors.UnsupportedError)):
        create(device, "timeline", types=0x4)


def test_a_bare_handle_keeps_the_payload_and_its_description(device: Device, peer: Peer) -> None:
    """S29. The exporter is closed, and another process gets a duplicate of the handle."""
    peer(PEER)
    for kind in KINDS:
        made = create(device, kind)
        handle = handle_of(device, made)
        assert isinstance(handle, NtHandle)
        signal(device, made)
        made.close()
        with handle:
            value = handle.duplicate(into=peer.pid)
            peer("other = import_into(device, kind, value)", kind=kind, value=value)
            assert peer("is_signaled(device, other)")
            peer("other.close()\nfrom extmem.manager import manager\nmanager().close(value)")


def test_objects_and_handles_are_sent_to_other_processes(device: Device, peer: Peer) -> None:
    peer(PEER + "\nimport pickle")
    for kind in KINDS:
        with create(device, kind) as made, handle_of(device, made) as handle:
            peer("one = pickle.loads(sent)", sent=pickle.dumps(made))
            peer("two = pickle.loads(sent)", sent=pickle.dumps(handle))
            peer("other = import_into(device, kind, two)", kind=kind)
            signal(device, made)
            assert peer("is_signaled(device, other)")
            peer("other.close()\ntwo.close()\none.close()")


def test_the_snapshot_lists_the_holders(device: Device, peer: Peer, name: str) -> None:
    peer(PEER)
    for kind in KINDS:
        with create(device, kind, name=name), extmem.open_handle(name, WAIT_ALONE) as handle:
            peer("other = import_into(device, kind, name=name)", kind=kind, name=name)
            (row,) = (row for row in manager().snapshot() if row.name is not None and row.name.endswith(f"\\{name}"))
            assert row.object_kind is (ObjectKind.FENCE if kind == "fence" else ObjectKind.SEMAPHORE)
            assert row.counter == (0 if kind == "timeline" else None)
            holders = {holder.pid: holder for holder in row.holders}
            assert set(holders) == {os.getpid(), peer.pid}
            assert [(one.value, one.granted) for one in holders[os.getpid()].handles] == [(int(handle), 0x2_0001)]
            assert holders[peer.pid].references == 1 and not holders[peer.pid].handles
            peer("other.close()")


def test_an_event_of_another_program_is_no_fence(device: Device, name: str) -> None:
    path = f"\\Sessions\\{manager().session()}\\BaseNamedObjects\\extmem.{name.upper()}"  # type: ignore[attr-defined]
    value = waitables.create_event(path, signaled=False)
    try:
        with pytest.raises(errors.ObjectTypeError):
            import_into(device, "fence", name=name)
    finally:
        calls.close(value)
