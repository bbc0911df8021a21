"""The cause of a failed import or export: a shortage of the machine is reported as that, not as a wrong fd."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.handles import FdHandle
from extmem.sharing.descriptor import Descriptor
from extmem.testing import fake_vulkan
from extmem.testing.children import Child

HandleType = vk.ExternalMemoryHandleTypeFlagBits
FD = HandleType.OPAQUE_FD
SIZE = 4096
Result = vk.Result
LACKS = [
    (Result.ERROR_OUT_OF_DEVICE_MEMORY, extmem.OutOfMemoryError),
    (Result.ERROR_OUT_OF_HOST_MEMORY, extmem.OutOfMemoryError),
    (Result.ERROR_TOO_MANY_OBJECTS, extmem.OutOfMemoryError),
    (Result.ERROR_DEVICE_LOST, extmem.DriverError),
]


@pytest.fixture
def fake() -> Iterator[fake_vulkan.FakeVulkan]:
    made = fake_vulkan.FakeVulkan([fake_vulkan.DISCRETE])
    with fake_vulkan.installed(made):
        yield made
    assert not made.misuses, [str(misuse) for misuse in made.misuses]
    assert not made.alive()


def handle_of(device: Device, *, known: bool) -> FdHandle:
    """Return an fd of memory of this GPU, as extmem's handle or as a bare number."""
    export = vk.ExportMemoryAllocateInfo(FD)
    with device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, export)) as memory:
        handle = memory.export_handle(FD)
    assert isinstance(handle, FdHandle)
    return handle if known else FdHandle(handle.take())


def take(device: Device, handle: FdHandle) -> Any:
    return device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, vk.ImportMemoryFdInfoKHR(FD, handle)))


@pytest.mark.linux_only("payloads are exported as fds")
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("result", "kind"), LACKS)
def test_a_failure_of_extmems_own_sample_is_reported_as_what_it_is(
    result: Result, kind: type[extmem.DriverError], known: bool, fake: fake_vulkan.FakeVulkan
) -> None:
    for command in ("vkAllocateMemory", "vkGetMemoryFdKHR"):
        with extmem.open_device(kind="vulkan") as device:
            handle = handle_of(device, known=known)
            fake.fail(1, result, command=command)
            with pytest.raises(kind) as caught:
                take(device, handle)
            assert type(caught.value) is kind and caught.value.result == result
            if result == Result.ERROR_DEVICE_LOST:
                handle.close()
                continue
            take(device, handle).close()


@pytest.mark.linux_only("payloads are exported as fds")
@pytest.mark.parametrize(("result", "kind"), LACKS)
def test_a_failure_of_the_proof_is_reported_as_what_it_is(
    result: Result, kind: type[extmem.DriverError], fake: fake_vulkan.FakeVulkan
) -> None:
    with extmem.open_device(kind="vulkan") as device:
        take(device, handle_of(device, known=False)).close()  # the sample exists
        handle = handle_of(device, known=False)
        for command in ("vkCreateDevice", "vkAllocateMemory"):
            fake.fail(1, result, command=command)
            if result == Result.ERROR_OUT_OF_DEVICE_MEMORY and command == "vkAllocateMemory":
                fake.fail(2, result, command=command)  # for any memory of the type, not for this fd alone
            with pytest.raises(kind) as caught:
                take(device, handle)
            assert type(caught.value) is kind and caught.value.result == result
        # Where there is memory for others, the same result is caused by the fd: drivers return it then, too.
        fake.fail(1, Result.ERROR_OUT_OF_DEVICE_MEMORY, command="vkAllocateMemory")
        with pytest.raises(extmem.DriverError, match="tried on a device of its own") as refused:
            take(device, handle)
        assert refused.value.result == Result.ERROR_INVALID_EXTERNAL_HANDLE
        take(device, handle).close()


OF_DIRECT3D = [HandleType.D3D11_TEXTURE, HandleType.D3D11_TEXTURE_KMT, HandleType.D3D12_HEAP, HandleType.D3D12_RESOURCE]
NUMBER = 0x4000_0002


@pytest.mark.linux_only("on Windows a Vulkan device imports them")
@pytest.mark.parametrize("handle_type", OF_DIRECT3D)
def test_direct3ds_types_are_refused_with_the_reason(handle_type: HandleType, fake: fake_vulkan.FakeVulkan) -> None:
    by_number = handle_type == HandleType.D3D11_TEXTURE_KMT
    for kind in ("vulkan", "host"):
        with extmem.open_device(kind=kind) as device:
            if by_number:
                number = raw.kmt_handle(NUMBER)
                link = vk.ImportMemoryWin32HandleInfoKHR(handle_type, number)
                stated = Descriptor(handle_types=int(handle_type), allocation_size=SIZE)
                with pytest.raises(extmem.ExtmemError, match=f"{handle_type.name}"):
                    raw.import_payload(device, number, stated)
            else:
                link = vk.ImportMemoryWin32HandleInfoKHR(handle_type, None, "a texture")
            with pytest.raises((extmem.UnsupportedError, extmem.RuleViolation), match=f"{handle_type.name}") as caught:
                device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, link))
            assert "do not refer to a payload" not in str(caught.value)
            if isinstance(caught.value, extmem.UnsupportedError):
                assert "only a Vulkan or CUDA device on Windows" in str(caught.value)


WITHOUT_DESCRIPTORS = """
import errno, os, pickle, resource, sys
import extmem, extmem.process
from extmem import vk
FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

def full():
    taken = []
    while True:
        try:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.EMFILE
            return taken

def said(call):
    taken = full()
    try:
        call()
    except extmem.ExtmemError as error:
        found = error
    else:
        sys.exit(f"{call} did not fail")
    finally:
        for fd in taken:
            os.close(fd)
    assert isinstance(found, extmem.OutOfMemoryError), repr(found)
    assert "Too many open files" in str(found) and "ulimit -n" in str(found), str(found)
    assert isinstance(found, MemoryError)

def spared(call):
    # However many descriptors are left: it works, or raises that none is left.
    for spare in range(8):
        taken = full()
        for _ in range(spare):
            os.close(taken.pop())
        try:
            call()
        except extmem.OutOfMemoryError as error:
            assert "Too many open files" in str(error) or "too many open files" in str(error), str(error)
        else:
            return
        finally:
            for fd in taken:
                os.close(fd)
    sys.exit(f"{call} never worked")

with extmem.open_device(kind=sys.argv[1]) as device:
    export = vk.ExportMemoryAllocateInfo(FD)
    def allocate():
        return device.allocate_memory(vk.MemoryAllocateInfo(4096, 0, export))
    with allocate() as memory, memory.export_handle(FD) as handle:
        device.open(handle.duplicate()).close()  # what is imported late is there
        said(lambda: memory.export_handle(FD))
        said(lambda: device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, FD)))
        said(handle.duplicate)
        said(allocate)
        said(lambda: device.open(handle))
        said(lambda: extmem.process.Popen([sys.executable, "-c", ""]))
        memory.export_handle(FD).close()
        handle.duplicate().close()
        allocate().close()
        device.open(handle).close()
    with device.allocate(64, name="short") as memory, memory.export_handle(FD) as handle:
        spared(lambda: device.allocate(64, name="another").close())
        spared(lambda: device.open("short", access=extmem.Access.READ_WRITE).close())
        spared(lambda: extmem.process.run(["true"]))
        spared(lambda: pickle.loads(pickle.dumps(handle)).close())
print("told")
"""


@pytest.mark.linux_only("descriptors are Linux's")
@pytest.mark.parametrize("kind", ["host", "vulkan"])
def test_out_of_descriptors_is_reported_as_that(kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "vulkan":
        request.getfixturevalue("vulkan_device")
    with Child.python(WITHOUT_DESCRIPTORS, kind) as child:
        child.wait()
        assert child.output.split()[-1] == "told"


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (Result.ERROR_UNKNOWN, "returned VK_ERROR_UNKNOWN .*gives no reason; run the program under VK_LAYER_KHRONOS"),
        (-987_654, "returned VkResult -987654 .*gives no reason; run the program under VK_LAYER_KHRONOS"),
        (Result.ERROR_FEATURE_NOT_PRESENT, "returned VK_ERROR_FEATURE_NOT_PRESENT .*the driver lacks a feature"),
    ],
)
def test_a_result_is_reported_with_what_to_do(result: int, told: str, fake: fake_vulkan.FakeVulkan) -> None:
    with extmem.open_device(kind="vulkan") as device:
        fake.fail(1, result, command="vkAllocateMemory")
        with pytest.raises(extmem.DriverError, match=told) as caught:
            device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0))
        assert caught.value.result == result
        device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0)).close()


def test_enums_are_reported_by_their_names(fake: fake_vulkan.FakeVulkan) -> None:
    """Of refusals by rule, by what the device lacks, and by the object manager: no `<Enum.NAME: 2>`."""
    T, refused = vk.ExternalMemoryHandleTypeFlagBits, []
    with extmem.open_device(kind="vulkan") as device, device.allocate(SIZE) as memory:
        for call in (
            lambda: memory.export_handle(T.D3D12_HEAP),
            lambda: device.allocate(SIZE, handle_types=int(T.D3D12_HEAP)),
            lambda: take_win32(device, T.OPAQUE_WIN32 | T.D3D12_HEAP),
            lambda: take_win32(device, T.OPAQUE_WIN32),
            lambda: take_win32(device, T.D3D11_TEXTURE),
            lambda: device.get_memory_win32_handle_properties(T.OPAQUE_WIN32, 4),
        ):
            with pytest.raises(extmem.errors.ExtmemError) as caught:
                call()
            refused.append(str(caught.value))
        memory.export_handle().close()
    assert not [text for text in refused if "<" in text.replace("pNext<", "")], refused
    assert all("D3D12_HEAP" in text for text in refused[:3]), refused


def take_win32(device: Device, handle_type: int) -> None:
    chain = vk.ImportMemoryWin32HandleInfoKHR(vk.ExternalMemoryHandleTypeFlagBits(handle_type), None, "nobody's name")
    device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, chain))
