"""Memory of another allocator, shared where it is: the list of the driver's allocations, lent while it is used."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import resource
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import extmem
from extmem.core import shared_devices
from extmem.devices.host import loans
from extmem.errors import UnsupportedError
from extmem.testing import fake_cuda, leaks
from extmem.testing.children import Peer
from extmem.testing.waiting import wait_until
from tests import cuda_bed
from tests.unit.devices.cuda.test_adopted import segment

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

GRANULE = 65_536
IMPORT = """
from extmem.manager import Reference, manager
owner = manager()
held = owner.import_by_name({name!r}, 0x2000000, Reference(owner))
len(held.payload.fds)
"""
FABRIC = 8


class Foreign:
    """An array of bytes of another allocator, in memory that a test made."""

    def __init__(self, pointer: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (pointer, False),
            "version": 3,
        }


@pytest.fixture
def fake() -> Iterator[fake_cuda.FakeCuda]:
    with leaks.no_leaks(), cuda_bed.both() as (cuda, _), shared_devices.fresh_devices():
        with extmem.open_device(kind="cuda"):  # the GPU's context exists, as that of the framework does
            yield cuda
        wait_until(lambda: not loans.lent(), what="the loans have ended")
        gc.collect()


def wait_for_the_end_of(values: weakref.ref[Any]) -> None:
    wait_until(lambda: values() is None, what="the source is not kept any more")


def living(fake: fake_cuda.FakeCuda) -> dict[str, int]:
    """Return how many objects of the driver live; contexts aside, since a device stays open for its next use."""
    return {what: count for what, count in fake.alive().items() if what != "retained contexts"}


def test_a_tensor_in_several_allocations_is_shared_without_a_copy(fake: fake_cuda.FakeCuda, name: str) -> None:
    with segment(fake, 1, 3, 1) as address:
        source = Foreign(address + 1024, 4 * GRANULE)
        before = fake.calls.count("cuMemcpyDtoDAsync")
        with extmem.share(source, name) as memory:
            assert memory.copied is False
            assert (memory.shape, memory.size, memory.allocation_size) == ((4 * GRANULE,), 4 * GRANULE, 5 * GRANULE)
            descriptor = memory.descriptor
            assert descriptor.parts == ((1, GRANULE), (1, 3 * GRANULE), (1, GRANULE))
            assert descriptor.payload_offset == 1024
            with extmem.open(name) as opened:
                read = opened.read()
                assert read[0] == 1 and read[GRANULE - 1024] == 2 and read[-1] == 3
                ctypes.memset(address + 1024, 9, 1)
                assert opened.read()[0] == 9
        assert fake.calls.count("cuMemcpyDtoDAsync") == before


def test_a_tensor_inside_of_one_allocation_is_shared_with_its_offset(fake: fake_cuda.FakeCuda, name: str) -> None:
    with segment(fake, 1, 2) as address:
        with extmem.share(Foreign(address + GRANULE + 512, 100), name) as memory:
            assert (memory.descriptor.parts, memory.descriptor.payload_offset) == ((), 512)
            with extmem.open(name) as opened:
                assert set(opened.read().tolist()) == {2}


def test_equal_allocations_are_one_run_of_the_description(fake: fake_cuda.FakeCuda, name: str) -> None:
    with segment(fake, *[1] * 20) as address:
        fake.whole_ranges = (address, 20 * GRANULE)
        with extmem.share(Foreign(address + 5 * GRANULE + 8, 12 * GRANULE), name) as memory:
            assert memory.descriptor.parts == ((13, GRANULE),)
            with extmem.open(name) as opened:
                assert opened.read()[::GRANULE].tolist() == list(range(6, 18))


def test_a_share_makes_few_calls_of_the_driver_for_each_allocation(fake: fake_cuda.FakeCuda, name: str) -> None:
    with segment(fake, *[1] * 20) as address:
        before = len(fake.calls)
        with extmem.share(Foreign(address, 20 * GRANULE), name):
            assert len(fake.calls) - before < 20 * 7
            before = len(fake.calls)
            with extmem.open(name):
                assert len(fake.calls) - before < 20 * 4


def test_the_source_is_kept_until_nobody_has_the_payload(fake: fake_cuda.FakeCuda, name: str) -> None:
    with segment(fake, 1, 1) as address:
        source = Foreign(address, 2 * GRANULE)
        kept = weakref.ref(source)
        memory = extmem.share(source, name)
        del source
        opened = extmem.open(name)
        memory.close()
        gc.collect()
        assert kept() is not None and opened.read()[-1] == 2
        opened.close()
        wait_for_the_end_of(kept)
        with pytest.raises(extmem.NameNotFoundError):
            extmem.open(name)


def test_without_other_holders_closing_ends_the_loan(fake: fake_cuda.FakeCuda) -> None:
    with segment(fake, 1, 1) as address:
        source = Foreign(address, 2 * GRANULE)
        kept = weakref.ref(source)
        extmem.share(source).close()
        del source
        wait_for_the_end_of(kept)


def test_a_part_of_an_import_keeps_the_source_too(fake: fake_cuda.FakeCuda, name: str) -> None:
    with segment(fake, 1, 1) as address:
        source = Foreign(address, 2 * GRANULE)
        kept = weakref.ref(source)
        with extmem.share(source, name), extmem.open(name) as opened:
            part = opened[GRANULE:].share(name + "-part")
        del source
        gc.collect()
        assert kept() is not None
        with extmem.open(name + "-part") as again:
            assert set(again.read().tolist()) == {2}
        part.close()
        wait_for_the_end_of(kept)


def test_changes_of_lent_memory_are_counted(fake: fake_cuda.FakeCuda, name: str) -> None:
    with segment(fake, 1, 1) as address, extmem.share(Foreign(address, 2 * GRANULE), name) as memory:
        with extmem.open(name) as opened:
            assert (memory.generation, opened.generation) == (0, 0)
            with memory.update():
                ctypes.memset(address, 9, 4)
                assert opened.generation == 1
            assert opened.generation == 2 and opened.wait(after=0) == 2
            with opened.stable():
                assert opened.read()[0] == 9
            with pytest.raises(extmem.AccessDeniedError), opened.update():
                pass


def test_readers_map_it_read_only(fake: fake_cuda.FakeCuda, name: str) -> None:
    with segment(fake, 1, 1) as address:
        with extmem.share(Foreign(address, 2 * GRANULE), name), extmem.open(name) as opened:
            with pytest.raises(extmem.AccessDeniedError):
                opened.fill(1)
        with extmem.share(Foreign(address, 2 * GRANULE), name, access=extmem.Access.READ_WRITE) as memory:
            with extmem.open(name) as opened:
                opened.fill(7)
                assert set(memory.read().tolist()) == {7}


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [((1, FABRIC), "fabric handles"), ((0, 0), "TORCH_CUDA_EXPANDABLE_SEGMENTS_IPC=0")],
    ids=["fabric", "none"],
)
def test_what_cannot_be_exported_is_copied_or_refused(
    fake: fake_cuda.FakeCuda, name: str, kinds: tuple[int, int], reason: str
) -> None:
    with segment(fake, 1, 1, kinds=kinds) as address:
        source = Foreign(address, 2 * GRANULE)
        with extmem.share(source, name) as memory:
            assert isinstance(memory.copied, str) and reason in memory.copied
            assert memory.read()[-1] == 2
        with pytest.raises(UnsupportedError, match=r"make_shareable\(\)") as caught:
            extmem.share(source, name, copy=False)
        assert reason in str(caught.value)


def test_memory_of_cudamalloc_is_refused_with_what_helps(fake: fake_cuda.FakeCuda) -> None:
    with pytest.raises(UnsupportedError, match="cudaMalloc") as caught:
        extmem.share(Foreign(4096, 4096), copy=False)
    assert "extmem.torch.pool()" in caught.value.requires_one_of


def test_a_vulkan_device_refuses_several_allocations_with_the_reason(fake: fake_cuda.FakeCuda, name: str) -> None:
    with segment(fake, 1, 1) as address, extmem.share(Foreign(address, 2 * GRANULE), name):
        with extmem.open_device(kind="vulkan") as device:
            with pytest.raises(UnsupportedError, match=r"2 allocations of CUDA.*extmem\.torch\.pool\(\)"):
                device.open(name)
    with segment(fake, 1, 1) as address, extmem.share(Foreign(address, GRANULE), name):
        with extmem.open_device(kind="vulkan") as device, device.open(name) as opened:
            assert opened.size == GRANULE


@pytest.mark.parametrize(
    "command", ["cuMemAddressReserve", "cuMemImportFromShareableHandle", "cuMemMap", "cuMemSetAccess"]
)
def test_an_import_that_fails_half_way_leaves_nothing(fake: fake_cuda.FakeCuda, name: str, command: str) -> None:
    with segment(fake, 1, 1, 1) as address:
        extmem.share(Foreign(address, 3 * GRANULE), name).close()
        wait_until(lambda: not loans.lent(), what="the loan has ended")
        fds = len(os.listdir("/proc/self/fd"))
        with extmem.share(Foreign(address, 3 * GRANULE), name):
            before = living(fake)
            fake.fail(1 if command in ("cuMemAddressReserve", "cuMemSetAccess") else 2, command=command)
            with extmem.open(name) as opened:
                with pytest.raises(extmem.OutOfMemoryError):
                    opened.device_array()
                assert living(fake) == before
                assert opened.read()[::GRANULE].tolist() == [1, 2, 3], "the first use that succeeds imports it"
            assert living(fake) == before
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= fds, what="no fd is left")


@pytest.mark.parametrize("command", ["cuMemRetainAllocationHandle", "cuMemExportToShareableHandle"])
def test_a_share_that_fails_half_way_leaves_nothing(fake: fake_cuda.FakeCuda, name: str, command: str) -> None:
    with segment(fake, 1, 1, 1) as address:
        source = Foreign(address, 3 * GRANULE)
        before = living(fake)
        fake.fail(2, command=command)
        with pytest.raises(extmem.OutOfMemoryError):
            extmem.share(source, name)
        assert living(fake) == before
        extmem.share(source, name).close()


def test_changes_of_lent_memory_are_counted_and_never_end(fake: fake_cuda.FakeCuda, name: str) -> None:
    with segment(fake, 1, 1) as address, extmem.share(Foreign(address, GRANULE), name) as memory:
        with extmem.open(name) as reader:
            with memory.update():
                assert reader.generation == 1
            assert reader.wait(after=0, timeout=60) == 2
            with pytest.raises(extmem.AccessDeniedError):
                reader.update()
            assert not reader.frozen
        with pytest.raises(UnsupportedError, match="lent by a framework"):
            memory.freeze()


def test_a_source_with_other_memory_is_stale(fake: fake_cuda.FakeCuda, name: str) -> None:
    with segment(fake, 1, 1) as address:
        source = Foreign(address, GRANULE)
        with extmem.share(source, name) as memory:
            memory.record.check_source()
            source.__cuda_array_interface__["data"] = (address + GRANULE, False)
            with pytest.raises(extmem.StaleSourceError, match=r"set_, resize_ or \.data ="):
                memory.record.check_source()
            with pytest.raises(extmem.StaleSourceError):
                memory.update()


def test_without_a_thread_nothing_is_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(extmem.OutOfMemoryError, match="none can be started"):
            loans.lend(Foreign(1, 1))
    assert not loans.lent()
    values = Foreign(1, 1)
    kept = weakref.ref(values)
    end = loans.lend(values)
    del values
    os.write(end.fd, b"what a holder writes means nothing")
    gc.collect()
    assert kept() is not None
    end.close()
    wait_for_the_end_of(kept)


def test_a_forked_child_keeps_nothing_of_its_parent_open(fake: fake_cuda.FakeCuda) -> None:
    values = Foreign(1, 1)
    kept = weakref.ref(values)
    end = loans.lend(values)
    del values
    receiving, sending = os.pipe()
    child = os.fork()
    if not child:
        os.close(sending)
        os.read(receiving, 1)
        os._exit(0 if not loans.lent() else 1)
    end.close()
    wait_for_the_end_of(kept)
    os.close(receiving)
    os.close(sending)
    assert os.waitpid(child, 0)[1] == 0


def test_too_few_file_descriptors_are_told_with_limit_and_need(fake: fake_cuda.FakeCuda, name: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with segment(fake, *[1] * 40) as address:
        source = Foreign(address, 40 * GRANULE)
        living_before = living(fake)
        limit = len(os.listdir("/proc/self/fd")) + 50
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
            with pytest.raises(extmem.OutOfMemoryError, match=rf"needs 88 file descriptors .* limit is {limit}"):
                extmem.share(source, name, copy=False)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            assert living(fake) == living_before
            with extmem.share(source, name, copy=False):
                with extmem.open(name) as opened:
                    assert opened.read()[-1] == 40
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _with_limit(limit: int, work: Callable[[], object]) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
        work()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _first_free() -> int:
    """Return the lowest limit below which no fd is free."""
    used = {int(number) for number in os.listdir("/proc/self/fd")}
    return next(number for number in range(3, 1 << 20) if number not in used)


@pytest.mark.slow("fills the table of descriptors sixty times")
@pytest.mark.parametrize("call", ["share", "open"])
def test_a_descriptor_table_that_is_full_at_any_step_loses_nothing(
    fake: fake_cuda.FakeCuda, name: str, call: str
) -> None:
    with segment(fake, *[1] * 6) as address:
        source = Foreign(address, 6 * GRANULE)
        extmem.share(source, name).close()  # all that is imported late is imported
        shared = extmem.share(source, name) if call == "open" else None
        extmem.open(name).close() if shared is not None else None
        before = living(fake)
        wait_until(lambda: len(loans.lent()) == (shared is not None), what="the loans have ended")
        fds = len(os.listdir("/proc/self/fd"))
        failed = 0

        def work() -> None:
            nonlocal failed
            try:
                with extmem.open(name) if shared is not None else extmem.share(source, name, copy=False) as made:
                    made.device_array()  # imports what was opened
            except (extmem.OutOfMemoryError, extmem.DriverError) as error:
                failed += 1
                if "cu" not in str(error)[:2]:
                    assert "ulimit -n" in str(error), error

        for more in range(60):
            _with_limit(_first_free() + more, work)
            gc.collect()
            wait_until(lambda: len(loans.lent()) == (shared is not None), what="the loans have ended")
            assert living(fake) == before
        assert 3 < failed < 50
        _with_limit(resource.getrlimit(resource.RLIMIT_NOFILE)[0], work)  # after it, nothing is kept for a next attempt
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= fds, what="no fd is left open", deadline=10)
        with extmem.open(name) if shared is not None else extmem.share(source, name, copy=False) as again:
            assert again.read()[::GRANULE].tolist() == [1, 2, 3, 4, 5, 6]
        if shared is not None:
            shared.close()


@pytest.mark.slow("starts a process")
def test_opening_tells_how_many_file_descriptors_it_needs(fake: fake_cuda.FakeCuda, name: str) -> None:
    with segment(fake, *[1] * 20) as address, extmem.share(Foreign(address, 20 * GRANULE), name), Peer() as peer:
        peer("import resource, os\nwith extmem.open_device(kind='host'): pass")
        peer(IMPORT.format(name=name))
        peer("held.give_back()\nhard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]")
        used = peer("len(os.listdir('/proc/self/fd')) - 1")
        peer("resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))", used=used)
        error = peer.fails(IMPORT.format(name=name))
        assert error.is_a("OutOfMemoryError")
        assert re.search(rf"22 are needed at once, .* has \d+ open, and its limit is {used + 8}", error.message), error
        peer("resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))")
        assert peer(IMPORT.format(name=name)) == 20
