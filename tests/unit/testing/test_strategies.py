"""The strategies generate what they state, and the library accepts it or refuses it correctly."""

from __future__ import annotations

from hypothesis import given, settings

import extmem
from extmem import vk
from extmem.objects import MEMORY, Refused, Status, resolve_name
from extmem.testing import strategies

W32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32


@given(strategies.valid_names())
def test_valid_names_resolve(name: str) -> None:
    key = resolve_name(name, 1)
    assert key.display.startswith("\\Sessions\\1\\BaseNamedObjects\\") and not key.is_global
    assert resolve_name(name.swapcase().swapcase(), 1).is_global is False


@given(strategies.any_names())
def test_any_name_resolves_or_is_refused_for_its_shape(name: str) -> None:
    try:
        resolve_name(name, 1)
    except Refused as refusal:
        assert refusal.status in (Status.OBJECT_NAME_INVALID, Status.OBJECT_PATH_NOT_FOUND)
        assert len(refusal.detail) > 20


@given(strategies.access_masks())
def test_generic_bits_never_survive_their_mapping(mask: int) -> None:
    mapped = MEMORY.map_generic(mask)
    assert not mapped & 0xF000_0000 and MEMORY.map_generic(mapped) == mapped


@settings(max_examples=40, deadline=None)
@given(strategies.buffer_create_infos(int(W32)))
def test_buffers_of_any_create_info_can_be_made(info: vk.BufferCreateInfo) -> None:
    with extmem.open_device() as device, device.create_buffer(info) as buffer:
        assert buffer.requirements.size >= info.size
