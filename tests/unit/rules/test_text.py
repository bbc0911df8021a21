"""Texts of values in messages."""

from __future__ import annotations

import pytest

from extmem import vk
from extmem.rules import _text
from extmem.rules._engine import Demand, Suite, demand

T = vk.ExternalMemoryHandleTypeFlagBits


def test_handle_types() -> None:
    assert _text.types_text(0) == "0"
    assert _text.types_text(int(T.OPAQUE_FD | T.DMA_BUF)) == "OPAQUE_FD | DMA_BUF"
    assert _text.types_text(1 << 31 | 2) == "OPAQUE_WIN32 | 0x80000000"
    assert _text.type_mask("all") == 0


def test_handles() -> None:
    assert _text.handle_text(None) == "NULL"
    assert _text.handle_text(0x1C) == "0x1c"
    assert _text.handle_text(-1) == "INVALID_HANDLE_VALUE"


def test_uuids() -> None:
    assert _text.uuid_text(bytes(range(16))) == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert _text.uuid_text(b"\x01") == "01"
    assert _text.uuid_text(b"") == "none"


def test_enums() -> None:
    assert _text.enum_text(1, vk.ImageLayout) == "GENERAL"
    assert _text.enum_text(12345, vk.ImageLayout) == "12345"


def test_a_check_needs_one_id_for_each_suite() -> None:
    suites: tuple[Suite[int], Suite[int]] = (Suite("a"), Suite("b"))
    with pytest.raises(ValueError):
        demand(suites, Demand("VkOnlyOne-1", bool))
