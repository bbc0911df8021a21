"""Access lists of a channel's objects: who may read the channel gets the rights of a reader, and this user all."""

from __future__ import annotations

import pytest

from extmem.errors import SecurityDescriptorError
from extmem.manager.windows.channel_security import lock_directory_sddl, root_directory_sddl
from extmem.manager.windows.security_descriptors import user_sid


def test_the_default_is_that_of_the_token() -> None:
    assert root_directory_sddl(None) is None and lock_directory_sddl(None) is None


@pytest.mark.parametrize(
    ("stated", "root", "locks"),
    [
        ("D:(A;;GR;;;WD)", 0x20003, 0x20007),
        ("D:(A;;GA;;;WD)", 0x20003, 0x20007),
        ("D:(A;;0x20001;;;WD)", 0x20003, 0x20007),
        ("D:(A;;0x1;;;WD)", 0, 0),
    ],
)
def test_who_reads_gets_the_rights_of_a_reader_alone(stated: str, root: int, locks: int) -> None:
    for made, mask in ((root_directory_sddl(stated), root), (lock_directory_sddl(stated), locks)):
        assert made is not None
        assert made.startswith(f"D:(A;;GA;;;{user_sid()})(A;;") and made.endswith(";;;WD)")
        assert _mask(made) == mask


def _mask(sddl: str) -> int:
    text = sddl.rpartition("(")[2].split(";")[2]
    words = {"CC": 1, "DC": 2, "LC": 4, "RC": 0x20000}
    return int(text, 16) if text.startswith("0x") else sum(words[text[at : at + 2]] for at in range(0, len(text), 2))


def test_a_text_without_protection_stays_one() -> None:
    assert root_directory_sddl("D:NO_ACCESS_CONTROL") == "D:NO_ACCESS_CONTROL"


def test_a_fault_is_an_error() -> None:
    with pytest.raises(SecurityDescriptorError):
        root_directory_sddl("D:(A;;GR;;;WD")
