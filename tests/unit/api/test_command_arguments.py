"""What commands and bindings read from their arguments: each is read once, and what was checked is what is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Buffer, Device, DeviceMemory, Image
from extmem.testing import fake_cuda, fake_vulkan
from tests.unit.api.test_commands import Bound, image
from tests.vulkan_bed import SHARES_NOTHING

TRANSFER = vk.PipelineStageFlagBits.TRANSFER
NOTHING = vk.AccessFlagBits(0)
IGNORED = int(vk.QUEUE_FAMILY_IGNORED)
LAYOUT = vk.ImageLayout


@pytest.fixture
def fake() -> Iterator[fake_vulkan.FakeVulkan]:
    made = fake_vulkan.FakeVulkan()
    with fake_vulkan.installed(made):
        yield made


@pytest.fixture
def faked(fake: fake_vulkan.FakeVulkan) -> Iterator[Device]:
    with extmem.open_device(kind="vulkan") as device:
        yield device


@pytest.fixture
def host() -> Iterator[Device]:
    with extmem.open_device(kind="host") as device:
        yield device


class Turning(Sequence[Any]):
    """A sequence with other contents each time it is read."""

    def __init__(self, *answers: Sequence[Any]) -> None:
        self.answers = list(answers)

    def _now(self) -> Sequence[Any]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def __getitem__(self, index: Any) -> Any:
        return self._now()[index]


def buffer_barrier(buffer: Buffer, offset: int = 0, size: int = 64) -> vk.BufferMemoryBarrier:
    return vk.BufferMemoryBarrier(NOTHING, NOTHING, IGNORED, IGNORED, buffer, offset, size)


def test_a_sequence_is_read_once(faked: Device, fake: fake_vulkan.FakeVulkan) -> None:
    """Its contents at the second reading are neither checked nor recorded."""
    with Bound(faked) as bound:
        good, bad = [buffer_barrier(bound.buffer)], [buffer_barrier(bound.buffer, 1 << 40)]
        with faked.commands() as commands:
            commands.pipeline_barrier(TRANSFER, TRANSFER, buffer_memory_barriers=Turning(good, bad))
        with pytest.raises(extmem.RuleViolation) as caught, faked.commands() as commands:
            commands.pipeline_barrier(TRANSFER, TRANSFER, buffer_memory_barriers=Turning(bad, good))
        assert [violation.vuid for violation in caught.value.violations] == ["VUID-VkBufferMemoryBarrier-offset-01187"]
        memory = [vk.MemoryBarrier(NOTHING, NOTHING)]
        with faked.commands() as commands:
            commands.pipeline_barrier(TRANSFER, TRANSFER, memory_barriers=Turning(memory, good))
    assert not fake.misuses


class Moving:
    """An offset that grows each time it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __index__(self) -> int:
        self.reads += 1
        return 0 if self.reads == 1 else 1 << 40


class Binding(vk.BindBufferMemoryInfo):
    """A struct of a program, which may have other contents each time it is read."""


def test_a_binding_is_read_once(faked: Device, fake: fake_vulkan.FakeVulkan) -> None:
    with (
        faked.create_buffer(vk.BufferCreateInfo(size=64, usage=vk.BufferUsageFlagBits.TRANSFER_DST)) as buffer,
        faked.allocate_memory(vk.MemoryAllocateInfo(4096, 0)) as memory,
    ):
        with pytest.raises(TypeError, match="pass a vk.BindBufferMemoryInfo"):
            faked.bind_buffer_memory2([Binding(buffer, memory, 0)])
        with pytest.raises(extmem.RuleViolation, match="memory_offset|memoryOffset"):
            faked.bind_buffer_memory2([vk.BindBufferMemoryInfo(buffer, memory, Moving())])  # type: ignore[arg-type]
        faked.bind_buffer_memory2([vk.BindBufferMemoryInfo(buffer, memory, 0)])
        assert buffer.memory_offset == 0
    assert not fake.misuses


@pytest.mark.parametrize("check", ["raise", "off"])
@pytest.mark.parametrize("given", [None, 5, "x", [None], [vk.MemoryBarrier(NOTHING, NOTHING)]])
def test_what_is_not_a_sequence_of_barriers_is_refused(fake: fake_vulkan.FakeVulkan, check: Any, given: Any) -> None:
    with extmem.open_device(kind="vulkan", check=check) as device, device.commands() as commands:
        with pytest.raises((TypeError, extmem.RuleViolation)):
            commands.pipeline_barrier(TRANSFER, TRANSFER, buffer_memory_barriers=given)
        if given != [vk.MemoryBarrier(NOTHING, NOTHING)]:
            with pytest.raises((TypeError, extmem.RuleViolation)):
                commands.pipeline_barrier(TRANSFER, TRANSFER, memory_barriers=given)


def test_a_layout_is_an_images(host: Device) -> None:
    with Bound(host) as bound, host.commands() as commands, pytest.raises(TypeError, match="is not an Image"):
        commands.change_layout(bound.buffer, LAYOUT.UNDEFINED, LAYOUT.GENERAL)  # type: ignore[arg-type]


@pytest.mark.parametrize("offset", [1 << 64, -4, 256])
def test_an_offset_outside_is_reported_and_not_the_default_size(host: Device, offset: int) -> None:
    def broken(record: Callable[[Any], None]) -> list[str]:
        with pytest.raises(extmem.RuleViolation) as caught, host.commands() as commands:
            record(commands)
        return [violation.vuid.removeprefix("VUID-vkCmd") for violation in caught.value.violations]

    with Bound(host) as a, Bound(host) as b:
        assert broken(lambda c: c.fill_buffer(a.buffer, 0, offset=offset)) == ["FillBuffer-dstOffset-00024"]
        assert broken(lambda c: c.copy_buffer(a.buffer, b.buffer, source_offset=offset)) == [
            "CopyBuffer-srcOffset-00113"
        ]
        assert broken(lambda c: c.copy_buffer(a.buffer, b.buffer, target_offset=offset)) == [
            "CopyBuffer-dstOffset-00114"
        ]
        with host.commands() as commands:
            commands.fill_buffer(a.buffer, 0, offset=252)
            commands.copy_buffer(a.buffer, b.buffer, source_offset=255)


# Read-only memory.

_SHARING = pytest.param("vulkan", marks=SHARES_NOTHING)


@pytest.fixture(params=["host", "vulkan"])
def any_device(request: pytest.FixtureRequest) -> Iterator[Device]:
    try:
        opened = extmem.open_device(kind=request.param)
    except extmem.UnsupportedError as error:
        pytest.skip(f"no Vulkan device here: {error}")
    with opened:
        yield opened


@pytest.fixture
def read_only(any_device: Device, runtime: object) -> Iterator[DeviceMemory]:
    """An import with read access only."""
    name = f"read only {os.getpid()}"
    with any_device.allocate(256, name=name, access=extmem.Access.READ) as owned:
        owned.write(b"\5" * 256)
        with any_device.open(name) as memory:
            assert memory.read_only
            yield memory
            assert owned.read_bytes() == b"\5" * 256


@pytest.mark.parametrize("any_device", ["host", _SHARING], indirect=True)
@pytest.mark.parametrize(
    ("record", "verb"),
    [
        (lambda c, target, other: c.fill_buffer(target, 7), "fill"),
        (lambda c, target, other: c.copy_buffer(other, target), "copy to"),
    ],
)
def test_commands_do_not_write_to_read_only_memory(
    any_device: Device, read_only: DeviceMemory, record: Callable[[Any, Buffer, Buffer], None], verb: str
) -> None:
    with Bound(any_device) as bound:
        with (
            pytest.raises(
                extmem.AccessDeniedError, match=f"cannot {verb} this memory .*read-only in this process; open it with"
            ),
            any_device.commands() as commands,
        ):
            record(commands, read_only.buffer(), bound.buffer)
        with any_device.commands() as commands:
            commands.copy_buffer(read_only.buffer(), bound.buffer)
        assert bound.bytes == b"\5" * 256


@pytest.mark.parametrize("any_device", [_SHARING], indirect=True)
def test_the_queue_reads_read_only_memory_and_does_not_write_to_it(any_device: Device, read_only: DeviceMemory) -> None:
    with Bound(any_device) as bound, read_only.access(queue=True) as buffer:
        assert isinstance(buffer, Buffer)
        with any_device.commands() as commands:
            commands.copy_buffer(buffer, bound.buffer)
            with pytest.raises(extmem.AccessDeniedError):
                commands.fill_buffer(buffer, 1)
        assert bound.bytes == b"\5" * 256


def test_commands_on_a_cuda_device_do_not_write_to_read_only_memory() -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    with fake_cuda.installed(fake_cuda.FakeCuda()), extmem.open_device(kind="cuda") as cuda:
        with cuda.allocate(256) as memory, cuda.allocate(256) as other:
            memory.fill(5)
            memory.record.writable = False
            with pytest.raises(extmem.AccessDeniedError), cuda.commands() as commands:
                commands.fill_buffer(memory.buffer(), 1)
            with cuda.commands() as commands:
                commands.copy_buffer(memory.buffer(), other.buffer())
            assert other.read_bytes() == memory.read_bytes() == b"\5" * 256


def test_images_in_read_only_memory_are_not_written_to(faked: Device) -> None:
    with image(faked) as target, Bound(faked) as bound:
        needs = target.requirements
        index = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
        with faked.allocate_memory(vk.MemoryAllocateInfo(needs.size, index)) as memory:
            faked.bind_image_memory(target, memory)
            with faked.commands() as commands:
                commands.change_layout(target, LAYOUT.UNDEFINED, LAYOUT.GENERAL)
            memory.record.writable = False
            writes: list[Callable[[Any], None]] = [
                lambda c: c.clear_color_image(target, (0, 0, 0, 0)),
                lambda c: c.copy_buffer_to_image(bound.buffer, target),
                lambda c: c.change_layout(target, LAYOUT.GENERAL, LAYOUT.TRANSFER_SRC_OPTIMAL),
                lambda c: c.acquire(target, new_layout=LAYOUT.TRANSFER_SRC_OPTIMAL),
                lambda c: c.release(target, new_layout=LAYOUT.TRANSFER_SRC_OPTIMAL),
            ]
            for write in writes:
                with pytest.raises(extmem.AccessDeniedError), faked.commands() as commands:
                    write(commands)
            with faked.commands() as commands:
                commands.acquire(target)
                commands.copy_image_to_buffer(target, bound.buffer)
                commands.release(target)
            bound.memory.record.writable = False
            with pytest.raises(extmem.AccessDeniedError), faked.commands() as commands:
                commands.copy_image_to_buffer(target, bound.buffer)


# What a resource reports of its memory.


def test_a_buffer_shows_its_bytes_wherever_the_payload_begins(any_device: Device) -> None:
    with any_device.allocate_memory(vk.MemoryAllocateInfo(16_384, 0)) as memory:
        memory.write(b"".join(bytes([letter]) * 4096 for letter in b"ABCD"))
        record = memory.record
        record.descriptor = extmem.Descriptor(
            handle_types=1, allocation_size=16_384, memory_type_index=0, payload_offset=4096, payload_size=4096
        )
        assert bytes(memory.map()) == b"B" * 4096
        whole = memory.buffer()
        assert bytes(whole.map()) == b"B" * 4096
        for offset, letter in ((0, b"A"), (8192, b"C")):
            with any_device.create_buffer(vk.BufferCreateInfo(size=60, usage=3)) as buffer:  # type: ignore[arg-type]
                any_device.bind_buffer_memory(buffer, memory, offset)
                assert bytes(buffer.map()) == letter * 60
        with Bound(any_device, 4096) as bound:
            with any_device.commands() as commands:
                commands.copy_buffer(whole, bound.buffer)
            assert bound.bytes == b"B" * 4096
        del whole


@pytest.mark.parametrize("any_device", ["host", _SHARING], indirect=True)
def test_a_read_only_buffer_shows_its_bytes_read_only(any_device: Device, read_only: DeviceMemory) -> None:
    view = read_only.buffer().map()
    assert view.readonly and bytes(view) == b"\5" * 256
    del view


def test_a_buffer_that_was_closed_is_made_again(any_device: Device) -> None:
    with any_device.allocate(256) as memory:
        with memory.buffer() as first:
            pass
        second = memory.buffer()
        assert second is not first and memory.buffer() is second
        with any_device.commands() as commands:
            commands.fill_buffer(second, 0x01010101)
        assert memory.read_bytes() == b"\1" * 256


def test_a_dedicated_buffer_that_was_closed_stays_closed(faked: Device) -> None:
    with faked.allocate(256, dedicated=True) as memory:
        with memory.buffer() as buffer:
            assert isinstance(buffer, Buffer) and not isinstance(buffer, Image)
        with pytest.raises(extmem.HandleStateError, match="dedicated to is destroyed"):
            memory.buffer()


# Processes.


@pytest.mark.linux_only("forks")
def test_a_forked_child_records_and_submits_nothing(host: Device) -> None:
    with Bound(host) as bound:
        begun = host.commands()
        with begun:
            child = os.fork()
            if not child:
                status = 1
                try:
                    failed = 0
                    for act in (
                        lambda: begun.fill_buffer(bound.buffer, 1),
                        lambda: host.commands().__enter__().fill_buffer(bound.buffer, 1),
                        lambda: begun.__enter__(),
                    ):
                        try:
                            act()
                        except extmem.HandleStateError as error:
                            failed += "forked child" in str(error)
                    status = 0 if failed == 3 else 2
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            begun.fill_buffer(bound.buffer, 0x02020202)
        assert bound.bytes == b"\2" * 256
