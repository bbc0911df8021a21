"""Hypothesis strategies for what programs pass in: names, access masks, create infos, descriptors. Needs hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from extmem import vk
from extmem.sharing import timeline_page
from extmem.sharing.descriptor.sync import SyncDescriptor

__all__ = ["access_masks", "any_names", "buffer_create_infos", "sync_descriptors", "timeline_pages", "valid_names"]

_BITS = (0x1, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x0200_0000, *(1 << bit for bit in range(28, 32)))
_PREFIXES = ("", "Local\\", "local\\", "Session\\1\\")


def valid_names() -> st.SearchStrategy[str]:
    """Names that an object of session 1 can have: any character but NUL and backslash, 260 UTF-16 units with prefix."""
    letters = st.characters(exclude_characters="\0\\", exclude_categories=["Cs"])
    # A character has two units at most, and the longest prefix ten characters.
    leaves = st.text(letters, min_size=1, max_size=125)
    return st.builds(str.__add__, st.sampled_from(_PREFIXES), leaves)


def any_names() -> st.SearchStrategy[str]:
    """Valid and invalid names: with backslashes, NULs and lone surrogates, names that are too long, and empty ones."""
    parts = st.sampled_from(["\\", "\0", "Global", "Local", "Session", "X", "x" * 261, "\ud800", "😀", ""])
    return st.one_of(valid_names(), st.text(max_size=300), st.lists(parts, max_size=8).map("".join))


def access_masks() -> st.SearchStrategy[int]:
    """Access masks: every combination of the bits with a meaning, and arbitrary 32-bit numbers."""
    meaningful = st.sets(st.sampled_from(_BITS)).map(sum)
    return meaningful | st.integers(0, 0xFFFF_FFFF)


def buffer_create_infos(handle_types: int = 0) -> st.SearchStrategy[vk.BufferCreateInfo]:
    """Create infos of buffers that every device can create, external ones where `handle_types` is not 0."""
    usages = st.sets(st.sampled_from([1 << bit for bit in range(9)]), min_size=1).map(sum)
    external = vk.ExternalMemoryBufferCreateInfo(handle_types) if handle_types else None
    return st.builds(
        lambda size, usage: vk.BufferCreateInfo(size=size, usage=usage, p_next=external),
        st.integers(1, 1 << 20),
        usages,
    )


def sync_descriptors() -> st.SearchStrategy[SyncDescriptor]:
    """Descriptors of binary semaphores, timelines and fences, of the host and of drivers."""
    masks, words = st.integers(0, 0xFFFF_FFFF), st.integers(0, (1 << 64) - 1)
    uuids = st.none() | st.binary(min_size=16, max_size=16)
    common = {
        "handle_types": masks,
        "flags": masks,
        "host": st.booleans(),
        "device_uuid": uuids,
        "driver_uuid": uuids,
        "owner_pid": masks,
        "owner_start_time": words,
    }
    plain = st.builds(SyncDescriptor, object_kind=st.sampled_from([2, 3]), **common)
    timelines = st.builds(SyncDescriptor, object_kind=st.just(2), timeline=st.just(True), initial_value=words, **common)
    return plain | timelines


def timeline_pages() -> st.SearchStrategy[bytearray]:
    """Pages of timelines, as a faulty process may leave them: any contents, most of them zeros."""

    def page(parts: list[tuple[int, bytes]]) -> bytearray:
        made = bytearray(timeline_page.PAGE_SIZE)
        for start, contents in parts:
            made[start : start + len(contents)] = contents
        return made

    part = st.tuples(st.integers(0, timeline_page.PAGE_SIZE - 64), st.binary(min_size=1, max_size=64))
    return st.lists(part, max_size=16).map(page)
