"""Messages are compared with a file that a person has reviewed."""

from __future__ import annotations

import re

import pytest

from extmem.rules import Violation, ledger
from extmem.rules.violation import OWN
from tests.rules import messages
from tests.rules.cases import CASES


def test_messages_are_the_expected_ones() -> None:
    """After a deliberate change: `python -m tests.rules messages`, and read the diff."""
    assert messages.text() == messages.EXPECTED.read_text(encoding="utf-8")


@pytest.mark.parametrize("vuid", CASES)
def test_a_message_has_all_its_parts(vuid: str) -> None:
    (v,) = (v for v in CASES[vuid].wrong() if v.vuid == vuid)
    assert re.fullmatch(r"[A-Za-z0-9_.<>\[\]]+", v.where)
    assert v.problem and not v.problem.endswith(".")
    assert v.remedy.endswith((".", "()."))
    assert v.link.endswith(f"vkspec.html#{vuid.split('-')[1] if vuid.startswith(OWN) else vuid}")
    assert v.rule == ledger.find(vuid).rule
    assert list(v.to_dict()) == ["vuid", "where", "problem", "remedy", "rule", "link"]


def test_a_violation_with_an_unknown_id_still_has_all_keys() -> None:
    v = Violation("VUID-nothing", "a.b", "it is", "Do.")
    assert v.to_dict() == {
        "vuid": "VUID-nothing",
        "where": "a.b",
        "problem": "it is",
        "remedy": "Do.",
        "rule": "",
        "link": "https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#VUID-nothing",
    }
