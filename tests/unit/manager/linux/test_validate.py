"""What no message can carry is refused with the object manager's own error, before a message is made."""

from __future__ import annotations

import pytest

from extmem import errors
from extmem.manager.linux.validate import (
    check_handle,
    check_mask,
    check_name,
    check_number,
    check_payload,
    check_sddl,
    check_ticket,
    stamped_ticket,
)


def test_what_fits_comes_back() -> None:
    assert check_name("naïve ☃") == "naïve ☃" and check_name("x" * 300) == "x" * 300
    assert check_handle(7) == 4 and check_handle(8) == 8
    assert check_number(0xFFFFFFFF) == 0xFFFFFFFF and check_mask(0) == 0
    assert check_sddl(None) is None and check_sddl("nonsense") == "nonsense"
    assert check_ticket(stamped_ticket(bytes(16))) == bytes(16)
    check_payload(b"x" * 4096, 4096, 8)


@pytest.mark.parametrize("name", ["x" * 601, "half \ud800 a character"])
def test_names_that_no_object_can_have(name: str) -> None:
    with pytest.raises(errors.NameInvalidError) as caught:
        check_name(name)
    assert caught.value.ntstatus == 0xC0000033


@pytest.mark.parametrize("value", [-1, -4, 1 << 63, 1 << 100])
def test_values_that_are_no_handle(value: int) -> None:
    with pytest.raises(errors.InvalidHandleError) as caught:
        check_handle(value)
    assert caught.value.ntstatus == 0xC0000008


@pytest.mark.parametrize("number", [-1, 1 << 32])
def test_numbers_and_masks_beyond_32_bits(number: int) -> None:
    for fit in (check_number, check_mask):
        with pytest.raises(errors.InvalidHandleError) as caught:
            fit(number)
        assert caught.value.ntstatus == 0xC000000D


@pytest.mark.parametrize("sddl", ["D:" + "(A;;GA;;;WD)" * 400, "D:\u2603"])
def test_security_descriptors_that_do_not_fit(sddl: str) -> None:
    with pytest.raises(errors.ObjectManagerError) as caught:
        check_sddl(sddl)
    assert caught.value.ntstatus == 0xC0000079


def test_descriptors_and_tickets_of_a_wrong_length() -> None:
    with pytest.raises(errors.DescriptorError, match="4097 bytes"):
        check_payload(b"x" * 4097, 1, 0)
    for ticket in (b"", bytes(15), bytes(16), bytes(17), bytes(18)):
        with pytest.raises(errors.InvalidHandleError):
            check_ticket(ticket)


@pytest.mark.parametrize(("handles", "pages"), [(0, 0), (4097, 0), (3, 3), (9, 9)])
def test_numbers_of_handles_that_a_payload_cannot_have(handles: int, pages: int) -> None:
    with pytest.raises(errors.InvalidHandleError, match=f"this one has {handles} with {pages} pages"):
        check_payload(b"", handles, pages)
