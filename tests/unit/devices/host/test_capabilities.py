"""What the host device reports about external handle types."""

from __future__ import annotations

import itertools

import pytest

from extmem import vk
from extmem.devices.host.backend import HostBackend
from extmem.errors import UnsupportedError
from tests.systems import on_linux, on_windows

HandleType = vk.ExternalMemoryHandleTypeFlagBits
Feature = vk.ExternalMemoryFeatureFlagBits
Usage = vk.ImageUsageFlagBits
FD, WIN32, KMT = HandleType.OPAQUE_FD, HandleType.OPAQUE_WIN32, HandleType.OPAQUE_WIN32_KMT
HOST = HandleType.HOST_ALLOCATION
BOTH = Feature.EXPORTABLE | Feature.IMPORTABLE
TRANSFER = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST


@pytest.fixture
def backend() -> HostBackend:
    return HostBackend()


def buffer_answer(backend: HostBackend, kind: int, flags: int = 0) -> vk.ExternalMemoryProperties:
    info = vk.PhysicalDeviceExternalBufferInfo(vk.BufferCreateFlagBits(flags), TRANSFER, HandleType(kind))
    return backend.external_buffer_properties(info).external_memory_properties


def image_query(
    kind: int, usage: int, vk_format: int = vk.Format.R8G8B8A8_UNORM, flags: int = 0
) -> vk.PhysicalDeviceImageFormatInfo2:
    return vk.PhysicalDeviceImageFormatInfo2(
        vk_format,
        vk.ImageType.TYPE_2D,
        vk.ImageTiling.OPTIMAL,
        Usage(usage),
        vk.ImageCreateFlagBits(flags),
        vk.PhysicalDeviceExternalImageFormatInfo(HandleType(kind)),
    )


def image_answer(backend: HostBackend, kind: int, usage: int) -> vk.ExternalMemoryProperties:
    found = vk.find(backend.image_format_properties(image_query(kind, usage)), vk.ExternalImageFormatProperties)
    assert found is not None
    return found.external_memory_properties


@pytest.mark.parametrize(
    ("kind", "features", "compatible", "again"),
    [
        on_linux(FD, BOTH, FD | WIN32 | KMT, FD | WIN32 | KMT),
        on_linux(WIN32, BOTH, WIN32 | FD, WIN32 | FD),
        on_linux(KMT, BOTH, KMT | FD, KMT | FD),
        on_windows(WIN32, BOTH, WIN32, HandleType(0)),
        on_windows(KMT, BOTH, KMT, HandleType(0)),
        (HOST, Feature.IMPORTABLE, HOST, HandleType(0)),
    ],
)
def test_B86_buffers_list_each_type_with_those_it_goes_with(
    backend: HostBackend, kind: HandleType, features: Feature, compatible: HandleType, again: HandleType
) -> None:
    answer = buffer_answer(backend, kind)
    assert answer == vk.ExternalMemoryProperties(features, again, compatible)
    assert answer.compatible_handle_types & kind


@pytest.mark.parametrize("kind", [on_linux(FD), WIN32, KMT, HOST])
def test_B86_images_list_exactly_themselves(backend: HostBackend, kind: HandleType) -> None:
    assert image_answer(backend, kind, Usage.TRANSFER_SRC | Usage.TRANSFER_DST).compatible_handle_types == kind


def test_B79_transfer_images_export_and_import_what_drivers_must() -> None:
    backend = HostBackend()
    usage = Usage.TRANSFER_SRC | Usage.TRANSFER_DST
    for kind in (WIN32, KMT):
        assert image_answer(backend, kind, usage).external_memory_features == BOTH
    assert image_answer(backend, HOST, usage).external_memory_features == Feature.IMPORTABLE


@pytest.mark.linux_only("a section has one name for life: what was imported on Windows is not exported again")
@pytest.mark.parametrize("kind", [FD, WIN32, KMT])
def test_B85_what_is_imported_can_be_exported_as_the_same_type_and_as_fd(
    backend: HostBackend, kind: HandleType
) -> None:
    answer = buffer_answer(backend, kind)
    assert answer.export_from_imported_handle_types & kind == kind
    assert answer.export_from_imported_handle_types & FD


@pytest.mark.parametrize(
    "kind",
    [bit for bit in HandleType if bit not in (FD, WIN32, KMT, HOST)] + [HandleType(0), FD | WIN32],
)
def test_no_other_type_has_any_feature(backend: HostBackend, kind: HandleType) -> None:
    answer = buffer_answer(backend, kind)
    assert answer.external_memory_features == 0
    assert answer.export_from_imported_handle_types == 0
    assert answer.compatible_handle_types == kind
    if kind:
        with pytest.raises(UnsupportedError, match="FORMAT_NOT_SUPPORTED"):
            backend.image_format_properties(image_query(kind, Usage.TRANSFER_SRC))


SPARSE = vk.BufferCreateFlagBits.SPARSE_BINDING
SPARSE_SETS = (
    vk.BufferCreateFlagBits(0),
    SPARSE,
    SPARSE | vk.BufferCreateFlagBits.SPARSE_RESIDENCY,
    SPARSE | vk.BufferCreateFlagBits.SPARSE_ALIASED,
)
BUFFER_USAGES = tuple(vk.BufferUsageFlagBits(1 << bit) for bit in range(9))


@pytest.mark.parametrize("kind", [on_linux(FD), WIN32, KMT])
def test_info_of_buffers_dedicated_only_means_requires_dedicated(backend: HostBackend, kind: HandleType) -> None:
    for flags, usage in itertools.product(SPARSE_SETS, BUFFER_USAGES):
        chained = vk.BufferUsageFlags2CreateInfo(vk.BufferUsageFlagBits2(int(usage)))
        info = vk.PhysicalDeviceExternalBufferInfo(flags, usage, kind, chained)
        answer = backend.external_buffer_properties(info)
        assert info == vk.PhysicalDeviceExternalBufferInfo(flags, usage, kind, chained)
        assert info.s_type == vk.StructureType.PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO
        assert answer.s_type == vk.StructureType.EXTERNAL_BUFFER_PROPERTIES
        assert answer.p_next is None
        plain = vk.PhysicalDeviceExternalBufferInfo(flags, usage, kind)
        assert backend.external_buffer_properties(plain) == answer  # the usage in the newer struct changes nothing
        features = answer.external_memory_properties.external_memory_features
        create = vk.BufferCreateInfo(flags, 1024, usage, p_next=vk.ExternalMemoryBufferCreateInfo(kind))
        if not features & Feature.EXPORTABLE:
            assert flags
            with pytest.raises(UnsupportedError):
                backend.buffer_requirements(create)
            continue
        required = backend.buffer_requirements(create)
        assert bool(features & Feature.DEDICATED_ONLY) == required.requires_dedicated
        assert required.size >= 1024


IMAGE_FLAGS = (
    vk.ImageCreateFlagBits(0),
    vk.ImageCreateFlagBits.SPARSE_BINDING,
    vk.ImageCreateFlagBits.SPARSE_BINDING | vk.ImageCreateFlagBits.SPARSE_RESIDENCY,
    vk.ImageCreateFlagBits.SPARSE_BINDING | vk.ImageCreateFlagBits.SPARSE_ALIASED,
    vk.ImageCreateFlagBits.MUTABLE_FORMAT,
    vk.ImageCreateFlagBits.CUBE_COMPATIBLE,
)
IMAGE_USAGES = (
    Usage.TRANSFER_SRC,
    Usage.TRANSFER_DST,
    Usage.TRANSFER_SRC | Usage.TRANSFER_DST,
    Usage.SAMPLED,
    Usage.STORAGE,
    Usage.COLOR_ATTACHMENT,
    Usage.DEPTH_STENCIL_ATTACHMENT,
    Usage.COLOR_ATTACHMENT | Usage.TRANSIENT_ATTACHMENT,
    Usage.COLOR_ATTACHMENT | Usage.INPUT_ATTACHMENT,
    Usage.DEPTH_STENCIL_ATTACHMENT | Usage.INPUT_ATTACHMENT,
)


@pytest.mark.parametrize("kind", [on_linux(FD), WIN32, KMT])
def test_info_of_images_dedicated_only_means_requires_dedicated(backend: HostBackend, kind: HandleType) -> None:
    seen = set()
    for flags, usage in itertools.product(IMAGE_FLAGS, IMAGE_USAGES):
        deep = usage & Usage.DEPTH_STENCIL_ATTACHMENT
        vk_format = vk.Format.D16_UNORM if deep else vk.Format.R8G8B8A8_UNORM
        info = image_query(kind, usage, vk_format, flags)
        try:
            answer = backend.image_format_properties(info)
        except UnsupportedError:
            assert flags & vk.ImageCreateFlagBits.SPARSE_BINDING
            continue
        assert info == image_query(kind, usage, vk_format, flags)
        found = vk.find(answer, vk.ExternalImageFormatProperties)
        assert found is not None and found.s_type == vk.StructureType.EXTERNAL_IMAGE_FORMAT_PROPERTIES
        features = found.external_memory_properties.external_memory_features
        create = vk.ImageCreateInfo(
            flags,
            vk.ImageType.TYPE_2D,
            vk_format,
            vk.Extent3D(64, 64, 1),
            1,
            1,
            vk.SampleCountFlagBits.COUNT_1,
            vk.ImageTiling.OPTIMAL,
            usage,
            p_next=vk.ExternalMemoryImageCreateInfo(kind),
        )
        required = backend.image_requirements(create)
        assert bool(features & Feature.DEDICATED_ONLY) == required.requires_dedicated == required.prefers_dedicated
        seen.add(required.requires_dedicated)
        create.p_next = None
        assert not backend.image_requirements(create).requires_dedicated, "an image that is not external"
    assert seen == {True, False}


def test_host_pointers_are_never_dedicated_only(backend: HostBackend) -> None:
    assert image_answer(backend, HOST, Usage.COLOR_ATTACHMENT).external_memory_features == Feature.IMPORTABLE
    assert (
        image_answer(backend, WIN32, Usage.COLOR_ATTACHMENT).external_memory_features == BOTH | Feature.DEDICATED_ONLY
    )


def test_without_a_type_no_external_answer_is_chained(backend: HostBackend) -> None:
    assert backend.image_format_properties(image_query(0, Usage.SAMPLED)).p_next is None
    query = image_query(0, Usage.SAMPLED)
    query.p_next = None
    assert backend.image_format_properties(query).p_next is None
