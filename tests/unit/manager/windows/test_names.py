"""Names of payloads as paths of kernel objects: a pure part of the Windows manager, tested on every system."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extmem import errors
from extmem.manager.windows import names


def path(name: str, session: int = 1) -> str:
    return names.payload_path(names.resolve(name, session))


@pytest.mark.parametrize(
    ("name", "session", "expected"),
    [
        ("Camera", 1, r"\Sessions\1\BaseNamedObjects\extmem.CAMERA"),
        (r"Local\Camera", 2, r"\Sessions\2\BaseNamedObjects\extmem.CAMERA"),
        (r"global\Camera", 2, r"\BaseNamedObjects\extmem.CAMERA"),
        ("Camera", 0, r"\BaseNamedObjects\extmem.CAMERA"),
        ("straße é", 1, "\\Sessions\\1\\BaseNamedObjects\\extmem.STRAßE É"),
    ],
)
def test_a_name_becomes_one_kernel_object(name: str, session: int, expected: str) -> None:
    assert path(name, session) == expected


@given(st.text(st.characters(exclude_characters="\\\0", exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_no_name_is_a_companion_or_a_number(name: str) -> None:
    kernel = path(name)
    assert names.is_ours(kernel)
    assert not names.is_ours(names.companion_of(kernel))
    assert names.find_number(kernel) == 0
    assert kernel != names.companion_of(path("x"))


@given(st.integers(0x4000_0000, 0xFFFF_FFFF), st.integers(0, 9))
def test_a_number_and_its_path_belong_together(number: int, session: int) -> None:
    kernel = names.kmt_path(number, session)
    assert names.find_number(kernel) == number
    assert names.is_ours(kernel)
    assert names.find_number(names.companion_of(kernel)) == 0


def test_names_that_nothing_can_have_are_refused_before_the_kernel_sees_them() -> None:
    for bad in ("", "a\0b", "\\x", "x" * 261):
        with pytest.raises(errors.NameInvalidError):
            names.resolve(bad, 1)
    with pytest.raises(errors.NameNotFoundError):
        names.resolve("a\\b", 1)


def test_an_object_without_a_name_has_a_path_that_no_name_leads_to() -> None:
    """The prefixes are in small letters, and a folded name has none."""
    hidden, page = names.hidden_path(1, bytes(16)), names.page_path(1, bytes(16))
    assert path("channel." + "0" * 32) != names.channel_directory(1, bytes(16))
    assert names.is_hidden(hidden) and not names.is_hidden(page) and not names.is_hidden(path("sync.0"))
    assert names.is_sync_event(hidden) and names.is_sync_event(path("Ready"))
    assert path("sync." + "0" * 32) != hidden and path("page." + "0" * 32) != page
    assert names.companion_of(hidden).endswith(".extmem")


@pytest.mark.parametrize("leaf", ["extmem.ticket.00.offer", "extmem.READY.extmem", "Ready", "extmem-test"])
def test_other_events_are_no_fences(leaf: str) -> None:
    assert not names.is_sync_event(rf"\Sessions\1\BaseNamedObjects\{leaf}")
