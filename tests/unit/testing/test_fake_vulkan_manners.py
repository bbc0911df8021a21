"""Invalid calls that real drivers accept, or that harm a process: extmem refuses them, or tries them safely."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator

import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.devices.types import ExaminedFd
from extmem.devices.vulkan.fd_check import FdCheck
from extmem.testing import fake_vulkan
from extmem.testing.fake_vulkan import Manners
from tests.behaviours.steps import FD, SIZE, W32, by_name, export, fd, import_fd, import_win32, nt

_KEPT = b"kept"


@contextlib.contextmanager
def with_manners(**manners: bool) -> Iterator[tuple[fake_vulkan.FakeVulkan, Device]]:
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED], Manners(**manners))
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        yield fake, device
    assert not fake.misuses, [str(misuse) for misuse in fake.misuses]
    assert not fake.alive()


def _file(size: int, name: str) -> int:
    made = os.memfd_create(name)
    os.ftruncate(made, size)
    return made


def _socket() -> int:
    here, there = socket.socketpair()
    there.close()
    return here.detach()


def _closed() -> int:
    made = os.memfd_create("closed")
    os.close(made)
    return made


BAD: dict[str, Callable[[], int]] = {
    "-1": lambda: -1,
    "/dev/null": lambda: os.open("/dev/null", os.O_RDWR),
    "a memory file": lambda: _file(1 << 20, "something else"),
    "closed": _closed,
    "a socket": _socket,
    "a directory": lambda: os.open("/tmp", os.O_RDONLY),
    "looks like one": lambda: _file(1 << 20, fake_vulkan.PAYLOAD_NAME),
    "looks like one, empty": lambda: _file(0, fake_vulkan.PAYLOAD_NAME),
    "looks like one, short": lambda: _file(100, fake_vulkan.PAYLOAD_NAME),
}


@contextlib.contextmanager
def bad_fd(kind: str) -> Iterator[int]:
    made = BAD[kind]()
    try:
        yield made
    finally:
        if kind not in ("-1", "closed"):
            os.close(made)  # EBADF here would mean that the refused import took it


def _works(device: Device) -> None:
    with export(device, types=FD) as memory, fd(device, memory) as ours:
        undescribed = raw.fd_handle(ours.duplicate().take())
        memory.write(_KEPT * (SIZE // 4))
        with import_fd(device, undescribed) as imported:
            assert bytes(imported.read()[:4]) == _KEPT


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_fd_never_reaches_the_device_in_use(kind: str) -> None:
    with with_manners(bad_fd_poisons=True) as (fake, device), bad_fd(kind) as fd_number:
        own = device.backend.raw  # type: ignore[attr-defined]  # the Vulkan device's own
        with pytest.raises(extmem.ExtmemError) as caught:
            import_fd(device, fd_number)
        assert f"{fd_number} is " in str(caught.value) or "the fd " in str(caught.value)
        assert own not in [where for where, _ in fake.bad_imports]
        assert not fake.poisoned_by, "the poisoned device was not destroyed"
        # A file with a payload's name and size lacks what the driver writes after its own.
        assert not fake.bad_imports
        _works(device)


@pytest.mark.parametrize("kind", [kind for kind in BAD if kind not in ("-1", "closed")])
def test_the_proof_alone_keeps_it_away_too(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def examine(self: FdCheck, fd: int, handle_type: int, *, trusted: bool = False) -> ExaminedFd:
        return ExaminedFd(fd, handle_type, "file", self_describing=False)

    monkeypatch.setattr(FdCheck, "examine", examine)
    monkeypatch.setattr(FdCheck, "check_content", lambda self, request: None)
    with with_manners(bad_fd_poisons=True) as (fake, device), bad_fd(kind) as fd_number:
        with pytest.raises(extmem.DriverError, match="tried on a device of its own"):
            import_fd(device, fd_number)
        assert len(fake.bad_imports) == 1 and not fake.poisoned_by
        _works(device)


def test_planted_missing_proof_poisons_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: without these checks a bad fd reaches the device, and nothing works any more."""
    monkeypatch.setattr(FdCheck, "check_content", lambda self, request: None)
    monkeypatch.setattr(FdCheck, "prove", lambda self, request: None)
    with with_manners(bad_fd_poisons=True) as (fake, device), bad_fd("looks like one") as fd_number:
        with pytest.raises(extmem.OutOfMemoryError):
            import_fd(device, fd_number)
        assert fake.poisoned_by == device.backend.raw  # type: ignore[attr-defined]  # the Vulkan device's own
        with pytest.raises(extmem.OutOfMemoryError):
            export(device)
        with extmem.open_device(kind="vulkan") as other, pytest.raises(extmem.OutOfMemoryError):
            export(other)
        device.close()
        with extmem.open_device(kind="vulkan") as other:
            _works(other)


@pytest.mark.parametrize("manner", ["none", "lenient_sizes"])
def test_other_sizes_and_types_are_refused_where_there_is_a_descriptor(manner: str) -> None:
    with with_manners(**{} if manner == "none" else {manner: True}) as (_, device):
        with export(device, types=W32 | FD, size=2 * SIZE) as memory, nt(device, memory) as handle:
            with pytest.raises(extmem.RuleViolation):
                import_win32(device, handle, size=SIZE)
            with pytest.raises(extmem.RuleViolation), fd(device, memory) as ours:
                import_fd(device, ours, size=SIZE)
            import_win32(device, handle, size=2 * SIZE).close()
            # A bare fd has no descriptor. This driver writes the size into its files, so that samples show it.
            with raw.fd_handle(fd(device, memory).take()) as undescribed, pytest.raises(extmem.DriverError):
                import_fd(device, undescribed, size=SIZE)


@pytest.mark.parametrize("manner", ["none", "takes_minus_one"])
def test_fd_minus_one_is_refused(manner: str) -> None:
    with with_manners(**{} if manner == "none" else {manner: True}) as (fake, device):
        with pytest.raises(extmem.ExtmemError):
            import_fd(device, -1)
        assert not fake.bad_imports
        _works(device)


@pytest.mark.parametrize("kind", ["looks like one, empty", "looks like one, short"])
def test_too_short_a_file_is_refused(kind: str) -> None:
    with with_manners(short_files_pass=True) as (_, device), bad_fd(kind) as fd_number:
        with pytest.raises(extmem.DriverError, match=f"and {SIZE} are to be imported"):
            import_fd(device, fd_number)
        _works(device)


def test_planted_missing_measure_lets_a_short_file_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FdCheck, "check_content", lambda self, request: None)
    with with_manners(short_files_pass=True) as (_, device), bad_fd("looks like one, empty") as fd_number:
        import_fd(device, os.dup(fd_number)).close()


def test_size_zero_is_refused() -> None:
    with with_manners(short_files_pass=True) as (_, device), export(device, types=FD) as memory:
        with fd(device, memory) as ours, pytest.raises(extmem.RuleViolation):
            import_fd(device, ours, size=0)


def test_a_payload_that_was_truncated_after_it_was_shared_is_refused(name: str) -> None:
    with with_manners(short_files_pass=True) as (_, device):
        with export(device, types=W32 | FD, name=name) as memory:
            by_name(device, name).close()
            with fd(device, memory) as ours:
                os.ftruncate(int(ours), 16)
            with pytest.raises(extmem.DriverError, match=f"and {SIZE} are to be imported"):
                by_name(device, name)


def test_a_device_that_is_lost_poisons_nothing() -> None:
    with with_manners(bad_fd_poisons=True) as (fake, device):
        fake.lose_device()
        with pytest.raises(extmem.DriverError) as caught:
            export(device)
        assert caught.value.result == vk.Result.ERROR_DEVICE_LOST
        with extmem.open_device(kind="vulkan") as other:
            _works(other)
