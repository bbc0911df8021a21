"""Creating and binding by the rules, on every kind of device; and the texts of the errors."""

from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import extmem
from extmem import vk
from extmem.testing import fake_vulkan
from tests import cuda_bed
from tests.rules.recipes_world import SHARED, World

T = vk.ExternalMemoryHandleTypeFlagBits
KINDS = ("host", "scripted GPU")


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


@pytest.fixture(params=KINDS)
def device(request: pytest.FixtureRequest, world: World) -> extmem.Device:
    return world.host if request.param == "host" else world.gpu()


def image_info(**fields: Any) -> vk.ImageCreateInfo:
    known: dict[str, Any] = {"image_type": 1, "format": 37, "extent": vk.Extent3D(32, 32, 1), "usage": 3}
    return vk.ImageCreateInfo(**{**known, **fields})


def ids(error: pytest.ExceptionInfo[extmem.RuleViolation]) -> set[str]:
    return {vuid.rsplit("-", 1)[1] for vuid in error.value.vuids}


def test_an_image_has_one_level_one_layer_and_one_sample_by_default(device: extmem.Device) -> None:
    with device.create_image(image_info()) as image:
        assert (image.create_info.mip_levels, image.create_info.array_layers, image.create_info.samples) == (1, 1, 1)


def test_zeros_are_refused_by_their_rules(device: extmem.Device) -> None:
    with pytest.raises(extmem.RuleViolation) as error:
        device.create_image(image_info(mip_levels=0, array_layers=0, samples=0))
    assert error.value.vuids == (
        "VUID-VkImageCreateInfo-mipLevels-00947",
        "VUID-VkImageCreateInfo-arrayLayers-00948",
        "VUID-VkImageCreateInfo-samples-parameter",
    )


def test_more_levels_than_the_image_can_be_halved_are_refused(device: extmem.Device) -> None:
    with pytest.raises(extmem.RuleViolation) as error:
        device.create_image(image_info(mip_levels=30))
    assert "00958" in ids(error)
    device.create_image(image_info(mip_levels=6)).close()


def test_features_that_are_off_are_refused_for_both_kinds(device: extmem.Device) -> None:
    with pytest.raises(extmem.RuleViolation) as error:
        device.create_buffer(vk.BufferCreateInfo(flags=vk.BufferCreateFlagBits.SPARSE_BINDING, size=64, usage=1))
    assert ids(error) == {"00915"}
    with pytest.raises(extmem.RuleViolation) as error:
        device.create_image(image_info(flags=vk.ImageCreateFlagBits.PROTECTED))
    assert "01890" in ids(error)


def test_tilings_and_structs_of_extensions_are_refused(world: World) -> None:
    device = world.gpu()
    with pytest.raises(extmem.RuleViolation) as error:
        device.create_image(image_info(tiling=vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT))
    assert ids(error) == {"parameter", "02261"}
    with pytest.raises(extmem.RuleViolation) as error:
        device.create_image(image_info(p_next=vk.ExternalMemoryImageCreateInfoNV(1)))
    assert ids(error) == {"pNext", "00991"}


NVIDIA = (
    vk.ExportMemoryAllocateInfoNV(1),
    vk.ExportMemoryAllocateInfoNV(0),
    vk.ExportMemoryWin32HandleInfoNV(),
    vk.ImportMemoryWin32HandleInfoNV(1, 4),
    vk.DedicatedAllocationMemoryAllocateInfoNV(),
    vk.MemoryPriorityAllocateInfoEXT(0.5),
)


@pytest.mark.parametrize("kind", ["host", "vulkan", "cuda"])
def test_every_device_refuses_structs_of_extensions_that_are_not_enabled(kind: str) -> None:
    """A struct that is silently ignored is worse than a refusal: an import would allocate new memory."""
    with cuda_bed.both(), extmem.open_device(kind=kind) as device:
        for struct in NVIDIA:
            with pytest.raises(extmem.RuleViolation, match=f"{type(struct).__name__} needs VK_") as error:
                device.allocate_memory(vk.MemoryAllocateInfo(4096, 0, struct))
            assert ids(error) == {"pNext"}
        for types in (0, 1):
            with pytest.raises(extmem.RuleViolation) as error:
                device.create_image(image_info(p_next=vk.ExternalMemoryImageCreateInfoNV(types)))
            assert {"pNext", "00991"} & ids(error) == ({"pNext", "00991"} if types else {"pNext"})
        device.allocate_memory(vk.MemoryAllocateInfo(4096, 0, vk.MemoryAllocateFlagsInfo())).close()


def test_a_format_that_the_device_lacks_is_not_supported_and_has_the_rule(device: extmem.Device) -> None:
    with pytest.raises(extmem.UnsupportedError) as error:
        device.create_image(image_info(format=vk.Format.BC1_RGB_UNORM_BLOCK))
    assert [v.vuid.rsplit("-", 1)[1] for v in error.value.violations] == ["02251"]
    assert "BC1_RGB_UNORM_BLOCK" in str(error.value) and "<" not in str(error.value)


def test_a_device_is_not_asked_about_what_means_nothing_to_it(world: World) -> None:
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
    world.keep(fake_vulkan.installed(fake))
    device = world.keep(extmem.open_device(kind="vulkan"))
    query = "vkGetPhysicalDeviceImageFormatProperties2"
    before = fake.calls.count(query)
    for wrong in ({"usage": 0}, {"format": 4242}, {"flags": 1 << 31}, {"image_type": 9}, {"tiling": 9}):
        with pytest.raises(extmem.RuleViolation):
            device.create_image(image_info(**wrong))
    assert fake.calls.count(query) == before
    device.create_image(image_info()).close()
    assert fake.calls.count(query) > before


def test_disjoint_images_are_not_supported(world: World) -> None:
    """extmem binds all planes at once; the driver's own command is not called."""
    device = world.gpu()
    backend = device.backend
    with pytest.raises(extmem.UnsupportedError, match="DISJOINT"):
        backend.create_image(image_info(flags=vk.ImageCreateFlagBits.DISJOINT | vk.ImageCreateFlagBits.ALIAS))


@pytest.mark.parametrize("kind", ["buffer", "image"])
def test_each_form_of_binding_has_its_own_ids(kind: Any, world: World) -> None:
    memory, resource = world.memory(world.host), world.resource(world.host, kind)
    info: Any = vk.BindBufferMemoryInfo if kind == "buffer" else vk.BindImageMemoryInfo
    one: Any = getattr(world.host, f"bind_{kind}_memory")
    two: Any = getattr(world.host, f"bind_{kind}_memory2")
    for call, struct, command in (
        (lambda: one(resource, memory, 1), f"vkBind{kind.capitalize()}Memory-", ""),
        (lambda: two([info(resource, memory, 1)]), f"VkBind{kind.capitalize()}MemoryInfo-", "2"),
    ):
        with pytest.raises(extmem.RuleViolation) as error:
            call()
        assert all(vuid.startswith(f"VUID-{struct}") for vuid in error.value.vuids)
        assert error.value.command == f"vkBind{kind.capitalize()}Memory{command}"


@pytest.mark.parametrize("kind", ["buffer", "image"])
def test_a_resource_is_bound_once_in_one_call_too(kind: Any, world: World) -> None:
    memory, resource = world.memory(world.host), world.resource(world.host, kind)
    info: Any = vk.BindBufferMemoryInfo if kind == "buffer" else vk.BindImageMemoryInfo
    two: Any = getattr(world.host, f"bind_{kind}_memory2")
    with pytest.raises(extmem.RuleViolation) as error:
        two([info(resource, memory, 0), info(resource, memory, 0)])
    assert ids(error) == {"07459" if kind == "buffer" else "07460"}
    assert resource.memory is None
    two([info(resource, memory, 0)])
    assert resource.memory is memory


def test_buffers_and_images_are_not_taken_for_one_another(world: World) -> None:
    memory, host = world.memory(world.host), world.host
    buffer, image = world.resource(host, "buffer"), world.resource(host, "image")
    wrong: Any = vk.BindBufferMemoryInfo(buffer, memory, 0)
    for call in (
        lambda: host.bind_buffer_memory(image, memory),
        lambda: host.bind_image_memory(buffer, memory),
        lambda: host.bind_buffer_memory2([vk.BindBufferMemoryInfo(image, memory, 0)]),
        lambda: host.bind_image_memory2([wrong]),
    ):
        with pytest.raises(TypeError, match="cannot bind"):
            call()
    host.bind_buffer_memory(buffer, memory)
    host.bind_image_memory(image, memory, 4096)


def test_memory_of_another_resource_breaks_both_rules_of_dedication(world: World) -> None:
    device = world.gpu(external=fake_vulkan.shared(buffer="required", image="required"))
    owner, other = (world.resource(device, "buffer", SHARED) for _ in range(2))
    memory = world.dedicated(device, owner)
    with pytest.raises(extmem.RuleViolation) as error:
        device.bind_buffer_memory(other, memory)
    assert {"01444", "01508"} <= ids(error)
    device.bind_buffer_memory(owner, memory)


def test_what_no_device_exports_is_left_out_and_not_dedicated(world: World) -> None:
    with pytest.raises(extmem.RuleViolation) as error:
        world.memory(world.host, vk.ExportMemoryAllocateInfo(T.OPAQUE_WIN32 | T.D3D11_TEXTURE))
    (dedicated,) = (v for v in error.value.violations if v.vuid.endswith("00639"))
    assert dedicated.remedy.startswith("Omit D3D11_TEXTURE:")


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_an_open_fd_of_an_opaque_type_is_not_called_closed(world: World) -> None:
    memory = world.memory(world.host, vk.ExportMemoryAllocateInfo(T.OPAQUE_FD))
    fd = world.keep(memory.export_handle(T.OPAQUE_FD))
    with pytest.raises(extmem.RuleViolation) as error:
        world.host.get_memory_fd_properties(T.OPAQUE_FD, fd)
    assert ids(error) == {"00674"}
    with pytest.raises(extmem.RuleViolation) as error:
        world.host.get_memory_fd_properties(T.OPAQUE_FD, 987654)
    assert ids(error) == {"00673", "00674"}


@pytest.mark.linux_only("mmap of Windows has no read-only anonymous pages")
def test_a_read_only_range_is_told_as_that(world: World) -> None:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    sizes = (ctypes.c_size_t(65536), mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, ctypes.c_long(0))
    start = libc.mmap(None, *sizes)
    try:
        with pytest.raises(extmem.RuleViolation, match="mapped for reading and writing"):
            world.memory(world.host, vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, start))
    finally:
        libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(65536))


number = st.one_of(st.integers(0, 4), st.sampled_from([6, 9, 64, 16384, 16385, 2**31, 2**32 - 1, -1, 2**32, "x", None]))
infos = st.builds(
    vk.ImageCreateInfo,
    number,
    number,
    st.one_of(number, st.sampled_from([37, 124, 130, 1000156003])),
    st.builds(vk.Extent3D, number, number, number),
    number,
    number,
    number,
    st.one_of(number, st.just(1000158000)),
    number,
    number,
    st.lists(number, max_size=2),
    number,
)


def test_any_create_info_is_made_or_refused_in_words(world: World) -> None:
    """Only the library's own errors, on either kind of device; and there is no misuse of the driver."""
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED], remembers=False)
    world.keep(fake_vulkan.installed(fake))
    devices = (world.host, world.keep(extmem.open_device(kind="vulkan")))

    @settings(max_examples=150, deadline=None, database=None)
    @given(info=infos)
    def put(info: vk.ImageCreateInfo) -> None:
        for device in devices:
            try:
                device.create_image(info).close()
            except (extmem.RuleViolation, extmem.UnsupportedError) as refusal:
                assert not re.search(r"<\w+\.\w+: \d+>", str(refusal)), refusal

    put()
    assert not fake.misuses
