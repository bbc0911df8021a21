"""Look-up of rules in the ledger by any of their names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from extmem import vk
from extmem.rules import ledger

WIN32 = "VUID-VkImportMemoryWin32HandleInfoKHR-"


@pytest.mark.parametrize(
    "name",
    [
        f"{WIN32}handleType-09861",
        f"{WIN32}handleType-00658",
        "VkImportMemoryWin32HandleInfoKHR-handleType-09861",
        "VkImportMemoryWin32HandleInfoKHR-handleType-00658",
        "handleType-00658",
        "09861",
        "00658",
        " 09861 ",
    ],
)
def test_old_and_short_names_lead_to_the_rule(name: str) -> None:
    assert ledger.find(name).vuid == f"{WIN32}handleType-09861"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("00667", "09862"),
        ("00656", "09860"),
        ("vkBindImageMemory-size-01049", "None-10737"),
        ("VkImageMemoryBarrier2-dstQueueFamilyIndex-09122", "VkImageMemoryBarrier2-dstQueueFamilyIndex-09100"),
    ],
)
def test_renumbered_rules_answer_under_both(old: str, new: str) -> None:
    assert ledger.find(old).vuid.endswith(new)


def test_a_name_that_means_several_rules_is_told_so() -> None:
    with pytest.raises(LookupError, match="vkBindBufferMemory-memory-02726.*Give more of the id"):
        ledger.find("02726")


def test_unknown_names_get_near_misses() -> None:
    with pytest.raises(LookupError, match="01441"):
        ledger.find(f"{WIN32}handle-01442")
    with pytest.raises(LookupError, match="`extmem rules` lists"):
        ledger.find("frames")
    with pytest.raises(LookupError):
        ledger.find("")
    assert ledger.near_misses("pacquiresyncs-0008")


def test_rows_can_be_narrowed_down() -> None:
    host = ledger.rows(family="host")
    assert {r.family for r in host} == {"host"}
    assert {r.status for r in ledger.rows(family="host", status="checked")} == {"checked"}
    assert len(ledger.rows()) > len(host) > 0


def test_rows_as_plain_values_have_all_keys() -> None:
    keys = [
        "vuid", "struct", "family", "implicit", "rule", "decidable_by", "aliases", "status", "checked_by", "reason",
        "tests",
    ]  # fmt: skip
    for row in ledger.rows():
        plain = row.to_dict()
        assert list(plain) == keys
        assert isinstance(plain["tests"], list) and isinstance(plain["aliases"], list)


def test_importing_the_rules_does_not_read_the_ledger() -> None:
    code = "import extmem.rules, sys; from extmem.rules import ledger; sys.exit(ledger._table.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=30)
    assert done.returncode == 0


def test_what_cannot_be_written_has_no_words_here() -> None:
    """Where a rule holds by construction because the library lacks a structure or command, the library lacks it."""
    missing = {row.struct for row in ledger.rows() if row.reason.endswith("cannot be written.")}
    sparse = {"VkSparseMemoryBind", "VkSparseImageMemoryBind", "VkBindSparseInfo", "vkQueueBindSparse"}
    assert missing == {"VkMemoryRangeBarrierKHR", *sparse}
    for struct in missing:
        assert not hasattr(vk, struct.removeprefix("Vk"))
