"""No check raises an exception, whatever the fields contain: it reports a violation, or nothing."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from extmem import rules, vk
from extmem.rules import AllocateFacts, ExternalMemoryFacts, MemoryFacts, PayloadFacts, Refusal, ResourceFacts, ledger
from extmem.rules._allocation import _SLOTS
from tests.rules.world import GPU, GPU_UUID, GROUP, MODERN, OTHER_UUID, PLAIN, buffer_info, image_info

TYPES = [int(t) for t in vk.ExternalMemoryHandleTypeFlagBits]
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 2**64),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.just(object()),
    st.just({}),
)
sane = st.one_of(
    st.sampled_from(TYPES), st.sampled_from([0, 1, 2, 4096, 65536, 2**32 - 1]), st.none(), st.text(max_size=3)
)
value = st.one_of(sane, sane, junk)


def struct(cls: type) -> st.SearchStrategy[Any]:
    """Return a struct of this class with arbitrary values in its fields; half of the fields keep their defaults."""
    names = [f.name for f in fields(cls) if f.name != "p_next"]
    return st.dictionaries(st.sampled_from(names), value, max_size=len(names)).map(lambda kw: cls(**kw))


chained = st.one_of(*(struct(cls) for cls in _SLOTS), struct(vk.BufferCreateInfo))


@st.composite
def chain(draw: st.DrawFn) -> Any:
    links = draw(st.lists(chained, max_size=4))
    for before, after in zip(links, links[1:], strict=False):
        before.p_next = after
    if links and draw(st.integers(0, 9)) == 0:
        links[-1].p_next = draw(st.one_of(st.sampled_from(links), junk))
    return links[0] if links else None


mask = st.sampled_from([*TYPES, 0, 6, 2**31])
uuid = st.sampled_from([GPU_UUID, OTHER_UUID, None])
capability = st.builds(ExternalMemoryFacts, st.integers(0, 7), mask, mask)
capabilities = st.dictionaries(st.sampled_from(TYPES), capability, max_size=3)
resource = st.builds(
    lambda info, caps, **kw: ResourceFacts(
        "buffer" if isinstance(info, vk.BufferCreateInfo) else "image", info, capabilities=caps, **kw
    ),
    st.sampled_from(
        [
            buffer_info(),
            buffer_info(2),
            image_info(),
            image_info(8),
            buffer_info(sharing_mode=vk.SharingMode.CONCURRENT),
        ]
    ),
    capabilities,
    size=st.sampled_from([0, 1, 65536]),
    alignment=st.sampled_from([0, 1, 256]),
    memory_type_bits=st.sampled_from([0, 2, 7]),
    handle_types=mask,
    identity=st.integers(0, 1),
    requires_dedicated=st.booleans(),
    alive=st.booleans(),
    bound=st.booleans(),
    device_uuid=st.sampled_from([b"", GPU_UUID, OTHER_UUID]),
)
payload = st.builds(
    PayloadFacts,
    mask,
    st.sampled_from([None, 0, 65536]),
    st.sampled_from([None, 1]),
    uuid,
    uuid,
    st.sampled_from([None, "none", "buffer", "image"]),
    st.sampled_from([None, buffer_info(2), image_info(8)]),
    st.integers(0, 3),
    st.sampled_from([(), (GPU_UUID, OTHER_UUID)]),
    st.booleans(),
    st.sampled_from([None, 0, 2]),
)
allocate_facts = st.builds(
    AllocateFacts,
    st.sampled_from([GPU, GROUP]),
    st.one_of(st.none(), resource),
    capabilities,
    st.one_of(st.none(), payload),
    st.one_of(st.none(), st.just(Refusal("STATUS_INVALID_HANDLE", "no."))),
    st.sampled_from([None, 0, 2]),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, True, False]),
)
memory = st.builds(
    MemoryFacts,
    st.sampled_from([0, 65536]),
    st.integers(0, 40),
    mask,
    mask,
    st.one_of(st.none(), resource),
    exported_nt_types=mask,
    alive=st.booleans(),
)


def check_violations(found: list[rules.Violation]) -> None:
    """Each violation is of a rule of the ledger, has all its parts, and is reported once."""
    for v in found:
        assert ledger.find(v.vuid).status in ("checked", "on request")
        assert v.where and v.problem and v.remedy and v.rule
    keys = [(v.vuid, v.where) for v in found]
    assert len(keys) == len(set(keys))


@settings(max_examples=400, deadline=None)
@given(struct(vk.MemoryAllocateInfo), chain(), allocate_facts)
def test_allocate_memory(info: Any, links: Any, facts: AllocateFacts) -> None:
    info.p_next = links
    check_violations(rules.check_allocate_memory(info, facts))


@settings(max_examples=150, deadline=None)
@given(value, memory)
def test_get_handles(anything: Any, known: MemoryFacts) -> None:
    check_violations(
        rules.check_get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(anything, anything, anything), GPU, known)
    )
    check_violations(rules.check_get_memory_fd(vk.MemoryGetFdInfoKHR(1, anything), GPU, known))
    check_violations(rules.check_get_memory_win32_handle(anything, GPU, known))
    check_violations(rules.check_get_memory_fd(anything, GPU, known))


@settings(max_examples=150, deadline=None)
@given(value, value, st.sampled_from([None, True, False]))
def test_properties(kind: Any, handle: Any, fact: bool | None) -> None:
    check_violations(rules.check_memory_win32_handle_properties(kind, handle, GPU))
    check_violations(rules.check_memory_fd_properties(kind, handle, GPU, fd_is_valid=fact))
    check_violations(rules.check_memory_host_pointer_properties(kind, handle, GPU, mapped=fact))


CREATE = st.one_of(struct(vk.BufferCreateInfo), struct(vk.ImageCreateInfo), value)
EXTERNAL = st.one_of(
    struct(vk.ExternalMemoryBufferCreateInfo),
    struct(vk.ExternalMemoryImageCreateInfo),
    struct(vk.ExternalMemoryImageCreateInfoNV),
    struct(vk.PhysicalDeviceExternalImageFormatInfo),
    junk,
)


@settings(max_examples=200, deadline=None)
@given(CREATE, EXTERNAL, EXTERNAL, capabilities)
def test_create(info: Any, first: Any, second: Any, answers: Any) -> None:
    if isinstance(first, vk.ChainStruct):
        first.p_next = second
    if isinstance(info, vk.ChainStruct):
        info.p_next = first
    check_violations(rules.check_create_buffer(info, GPU, answers))
    check_violations(rules.check_create_image(info, GPU, answers))
    check_violations(rules.check_external_image_format_info(first))
    query = vk.PhysicalDeviceImageFormatInfo2(p_next=first)
    check_violations(rules.check_external_image_format_info(query))


@settings(max_examples=150, deadline=None)
@given(struct(vk.PhysicalDeviceExternalBufferInfo), chain())
def test_external_buffer_info(info: Any, links: Any) -> None:
    info.p_next = links
    check_violations(rules.check_external_buffer_info(info))
    check_violations(rules.check_external_buffer_info(links))


@settings(max_examples=200, deadline=None)
@given(value, resource, memory, st.sampled_from([1, 2]))
def test_bind(offset: Any, known: ResourceFacts, mem: MemoryFacts, form: Any) -> None:
    check_violations(rules.check_bind_buffer_memory(vk.BindBufferMemoryInfo(1, 2, offset), known, mem, form=form))
    check_violations(rules.check_bind_image_memory(vk.BindImageMemoryInfo(1, 2, offset), known, mem, form=form))
    check_violations(rules.check_bind_image_memory(offset, known, mem, form=form))


@settings(max_examples=150, deadline=None)
@given(struct(vk.Win32KeyedMutexAcquireReleaseInfoKHR), st.lists(st.one_of(st.none(), memory), max_size=3))
def test_keyed_mutex(info: Any, memories: Any) -> None:
    check_violations(rules.check_keyed_mutex(info, memories))


@settings(max_examples=100, deadline=None)
@given(value, memory)
def test_mapping(anything: Any, mem: MemoryFacts) -> None:
    check_violations(rules.check_map_memory(vk.MemoryMapInfo(flags=anything), mem))
    check_violations(rules.check_unmap_memory(vk.MemoryUnmapInfo(flags=anything), mem))
    check_violations(rules.check_map_memory(anything, mem))


family_index = st.one_of(st.sampled_from([0, 1, 7, 2**32 - 1, 2**32 - 2, 2**32 - 3]), value)


def barrier(cls: type) -> st.SearchStrategy[Any]:
    """Return a barrier with arbitrary values in its fields, mostly between families that exist."""
    return st.builds(_moved, struct(cls), family_index, family_index)


def _moved(info: Any, src: Any, dst: Any) -> Any:
    info.src_queue_family_index, info.dst_queue_family_index = src, dst
    return info


some_barrier = st.one_of(
    barrier(vk.BufferMemoryBarrier),
    barrier(vk.BufferMemoryBarrier2),
    barrier(vk.ImageMemoryBarrier),
    barrier(vk.ImageMemoryBarrier2),
    value,
)
known_resource = st.one_of(st.none(), resource)
device = st.sampled_from([GPU, MODERN, PLAIN])


def test_facts_of_the_other_kind_of_resource_are_not_used() -> None:
    """The facts of a buffer state nothing about an image, and the reverse."""
    image = ResourceFacts("image", image_info(), size=65536, alignment=1, memory_type_bits=1)
    buffer = ResourceFacts("buffer", buffer_info(), size=65536, alignment=1, memory_type_bits=1)
    outside = vk.ImageMemoryBarrier(subresource_range=vk.ImageSubresourceRange(1, 99, 1, 0, 1))
    past = vk.BufferMemoryBarrier(offset=1 << 40, size=4)
    assert rules.check_image_memory_barrier(outside, image, GPU)
    assert not rules.check_image_memory_barrier(outside, buffer, GPU)
    assert rules.check_buffer_memory_barrier(past, buffer, GPU)
    assert not rules.check_buffer_memory_barrier(past, image, GPU)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(some_barrier, max_size=3), value), known_resource, device, st.sampled_from([None, 0, 1]))
def test_barriers(some: Any, known: Any, facts: Any, family: Any) -> None:
    for info in some if isinstance(some, list) else [some]:
        check_violations(rules.check_buffer_memory_barrier(info, known, facts))
        check_violations(rules.check_image_memory_barrier(info, known, facts))
    others: Any = {"buffers": [known], "images": [known, known], "recording_family": family}
    check_violations(rules.check_pipeline_barrier(some, some, facts, **others))
    check_violations(rules.check_pipeline_barrier2(vk.DependencyInfo(0, some, some, some), facts, **others))
    check_violations(rules.check_pipeline_barrier2(some, facts, **others))
