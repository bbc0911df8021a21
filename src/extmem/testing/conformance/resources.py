"""Scenarios for buffers and images: their reported properties, and sharing before and after binding."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from extmem import vk
from extmem.api import Buffer, Image
from extmem.errors import RuleViolation, UnsupportedError
from extmem.testing.conformance._case import Case, ConformanceError, expect

__all__ = [
    "bind_export_import_bind",
    "buffer_info",
    "export_bind_import_bind",
    "export_import_bind_bind",
    "image_info",
    "zero_handle_memory",
]

_Feature = vk.ExternalMemoryFeatureFlagBits
_B = vk.BufferUsageFlagBits
_BUFFER_USAGES = (
    _B.TRANSFER_SRC,
    _B.TRANSFER_DST,
    _B.UNIFORM_TEXEL_BUFFER,
    _B.STORAGE_TEXEL_BUFFER,
    _B.UNIFORM_BUFFER,
    _B.STORAGE_BUFFER,
    _B.INDEX_BUFFER,
    _B.VERTEX_BUFFER,
    _B.INDIRECT_BUFFER,
)
_BF = vk.BufferCreateFlagBits
_BUFFER_FLAGS = (
    _BF(0),
    _BF.SPARSE_BINDING,
    _BF.SPARSE_BINDING | _BF.SPARSE_RESIDENCY,
    _BF.SPARSE_BINDING | _BF.SPARSE_ALIASED,
)
_I = vk.ImageUsageFlagBits
_IMAGE_USAGES = (
    _I.TRANSFER_SRC,
    _I.TRANSFER_DST,
    _I.SAMPLED,
    _I.STORAGE,
    _I.COLOR_ATTACHMENT,
    _I.DEPTH_STENCIL_ATTACHMENT,
    _I.COLOR_ATTACHMENT | _I.TRANSIENT_ATTACHMENT,
    _I.COLOR_ATTACHMENT | _I.INPUT_ATTACHMENT,
    _I.TRANSFER_SRC | _I.TRANSFER_DST,
    _I.SAMPLED | _I.TRANSFER_DST,
)
_IF = vk.ImageCreateFlagBits
_IMAGE_FLAGS = (
    _IF(0),
    _IF.SPARSE_BINDING,
    _IF.SPARSE_BINDING | _IF.SPARSE_RESIDENCY,
    _IF.SPARSE_BINDING | _IF.SPARSE_ALIASED,
    _IF.MUTABLE_FORMAT,
    _IF.CUBE_COMPATIBLE,
)


_TRANSFERS = (_I.TRANSFER_SRC, _I.TRANSFER_DST, _I.TRANSFER_SRC | _I.TRANSFER_DST)
"""Usages of images that must be supported where `Case.require_support` passes."""
_FEATURES = {
    int(_IF.SPARSE_BINDING): ("sparseBinding",),
    int(_IF.SPARSE_RESIDENCY): ("sparseResidencyBuffer", "sparseResidencyImage2D"),
    int(_IF.SPARSE_ALIASED): ("sparseResidencyAliased",),
}
"""The features that enable each create flag: of buffers, and then of images where another one enables it for them."""


def _enabled(case: Case, flags: int, image: bool) -> bool:
    """Return whether the features that resources with these flags require are enabled."""
    features = case.exporter.facts.features
    required = [names[min(image, len(names) - 1)] for bit, names in _FEATURES.items() if flags & bit]
    return features is None or features.issuperset(required)


def _expect_refusal(case: Case, info: vk.BufferCreateInfo | vk.ImageCreateInfo, what: str) -> None:
    """Check that a resource which the device does not support cannot be created, and that the refusal names a rule."""
    if case.exporter.check != "raise":
        return  # without checks an invalid call would reach the driver
    try:
        buffer = isinstance(info, vk.BufferCreateInfo)
        resource = case.exporter.create_buffer(info) if buffer else case.exporter.create_image(info)  # type: ignore[arg-type]
    except (RuleViolation, UnsupportedError) as refusal:
        expect(refusal.violations, f"{what}: it is refused without a rule: {refusal}")
        return
    resource.close()
    raise ConformanceError(f"{what}: the device reports that it has none, and one was made")


def _check_properties(case: Case, properties: vk.ExternalMemoryProperties, what: str) -> int:
    """Check what a query returned, and return its feature bits."""
    features = int(properties.external_memory_features)
    if features & (_Feature.EXPORTABLE | _Feature.IMPORTABLE):
        expect(
            int(properties.compatible_handle_types) & case.handle_type,
            f"{what}: compatibleHandleTypes {properties.compatible_handle_types!r} lacks the type of the query",
        )
    return features


def buffer_info(case: Case) -> None:
    """Compare vkGetPhysicalDeviceExternalBufferProperties with real buffers, for 4 flag sets and 9 usages.

    Where a required feature is not enabled, the creation must be refused with the rule.
    """
    for flags in _BUFFER_FLAGS:
        for usage in _BUFFER_USAGES:
            query = vk.PhysicalDeviceExternalBufferInfo(flags, usage, case.handle_type)
            before = copy.deepcopy(query)
            answer = case.exporter.get_physical_device_external_buffer_properties(query)
            what = f"buffer with {flags!r} and {usage!r}"
            expect(query == before, f"{what}: the query changed its input struct")
            expect(answer.p_next is None, f"{what}: the answer has a pNext chain, and the query had none")
            features = _check_properties(case, answer.external_memory_properties, what)
            info = vk.BufferCreateInfo(flags, 1024, usage, p_next=vk.ExternalMemoryBufferCreateInfo(case.handle_type))
            if not _enabled(case, flags, image=False):
                _expect_refusal(case, info, what)
                continue
            if not features & _Feature.EXPORTABLE:
                transfer = not flags and usage in (_B.TRANSFER_SRC, _B.TRANSFER_DST)
                expect(not transfer, f"{what}: it cannot be exported, although buffers for both transfers can")
                continue
            with case.exporter.create_buffer(info) as buffer:
                _check_dedicated(bool(features & _Feature.DEDICATED_ONLY), buffer.requirements.requires_dedicated, what)


def _check_dedicated(reported: bool, required: bool, what: str) -> None:
    expect(
        reported == required,
        f"{what}: DEDICATED_ONLY is {reported}, and a real one's requiresDedicatedAllocation is {required}",
    )


def _image_infos(case: Case) -> Iterator[vk.PhysicalDeviceImageFormatInfo2]:
    for flags in _IMAGE_FLAGS:
        for usage in _IMAGE_USAGES:
            deep = usage & _I.DEPTH_STENCIL_ATTACHMENT
            yield vk.PhysicalDeviceImageFormatInfo2(
                vk.Format.D16_UNORM if deep else vk.Format.R8G8B8A8_UNORM,
                vk.ImageType.TYPE_2D,
                vk.ImageTiling.OPTIMAL,
                usage,
                flags,
                vk.PhysicalDeviceExternalImageFormatInfo(case.handle_type),
            )


def image_info(case: Case) -> None:
    """Compare vkGetPhysicalDeviceImageFormatProperties2 with real images, for 6 flag sets and 10 usages.

    Where the device does not support the image, or a required feature is not enabled, the creation must be refused
    with the rule.
    """
    for query in _image_infos(case):
        before = copy.deepcopy(query)
        what = f"image with {query.flags!r} and {query.usage!r}"
        info = vk.ImageCreateInfo(
            query.flags,
            query.type,
            query.format,
            vk.Extent3D(64, 64, 1),
            array_layers=6 if query.flags & _IF.CUBE_COMPATIBLE else 1,
            tiling=query.tiling,
            usage=query.usage,
            p_next=vk.ExternalMemoryImageCreateInfo(case.handle_type),
        )
        transfer = not query.flags and query.usage in _TRANSFERS
        try:
            answer = case.exporter.get_physical_device_image_format_properties2(query)
        except UnsupportedError as refusal:  # VK_ERROR_FORMAT_NOT_SUPPORTED
            expect(not transfer, f"{what}: {refusal}; although images for both transfers are supported")
            _expect_refusal(case, info, what)
            continue
        expect(query == before, f"{what}: the query changed its input struct")
        chained = vk.find(answer, vk.ExternalImageFormatProperties)
        if chained is None:
            raise ConformanceError(f"{what}: the answer has no VkExternalImageFormatProperties, and the query had it")
        expect(
            answer.p_next is chained and chained.p_next is None, f"{what}: the answer's pNext chain is not the query's"
        )
        features = _check_properties(case, chained.external_memory_properties, what)
        if not _enabled(case, query.flags, image=True):
            _expect_refusal(case, info, what)
            continue
        if not features & _Feature.EXPORTABLE:
            expect(not transfer, f"{what}: it cannot be exported, although images for both transfers can")
            continue
        with case.exporter.create_image(info) as image:
            _check_dedicated(bool(features & _Feature.DEDICATED_ONLY), image.requirements.requires_dedicated, what)


def bind_export_import_bind(case: Case) -> None:
    """Bind the exporter's resource, export, import, bind the importer's."""
    a, b = case.resource(case.exporter), case.resource(case.importer)
    memory = case.allocate(a)
    case.bind(a, memory)
    imported = case.import_memory(b, case.handle(memory))
    case.bind(b, imported)
    _one_payload(case, a, b)


def export_bind_import_bind(case: Case) -> None:
    """Export, bind the exporter's resource, import, bind the importer's."""
    a, b = case.resource(case.exporter), case.resource(case.importer)
    memory = case.allocate(a)
    handle = case.handle(memory)
    case.bind(a, memory)
    imported = case.import_memory(b, handle)
    case.bind(b, imported)
    _one_payload(case, a, b)


def export_import_bind_bind(case: Case) -> None:
    """Export, import, bind the exporter's resource, bind the importer's."""
    a, b = case.resource(case.exporter), case.resource(case.importer)
    memory = case.allocate(a)
    imported = case.import_memory(b, case.handle(memory))
    case.bind(a, memory)
    case.bind(b, imported)
    _one_payload(case, a, b)


def _one_payload(case: Case, exporter: Buffer | Image, importer: Buffer | Image) -> None:
    """Check that what is written through one bound resource is read through the other, where the host can map both."""
    if exporter.memory is None or not case.can_look(exporter.memory):
        return
    for writer, reader in ((exporter, importer), (importer, exporter)):
        data = case.data(writer.requirements.size)
        with writer.map() as view:
            view[:] = data
        with reader.map() as view:
            expect(bytes(view) == data, f"{reader!r} does not read what was written through {writer!r}")


def zero_handle_memory(case: Case) -> None:
    """Memory with a VkExportMemoryAllocateInfo that has no handle types is an ordinary allocation."""
    info = vk.BufferCreateInfo(size=1024, usage=_B.TRANSFER_SRC | _B.TRANSFER_DST)
    with case.exporter.create_buffer(info) as buffer:
        chain = vk.ExportMemoryAllocateInfo(0)
        kind = case.memory_type(buffer)
        with case.exporter.allocate_memory(vk.MemoryAllocateInfo(buffer.requirements.size, kind, chain)) as memory:
            if case.can_look(memory):
                data = case.data(buffer.requirements.size)
                case.write(memory, data)
                case.expect_bytes(data, memory=memory)
