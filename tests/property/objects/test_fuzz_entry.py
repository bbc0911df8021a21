"""The SDDL fuzzer runs, is reproducible by its seed, and finds a parser that breaks its invariant."""

from __future__ import annotations

import pytest

from extmem.objects import ObjectType, SecurityDescriptor, Token, parse_sddl
from fuzz import fuzz_sddl


def test_a_short_run_holds_and_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz_sddl.run(["--iterations", "500", "--seed", "5"]) == 0
    first = capsys.readouterr().out
    assert "500 texts" in first and "seed 5" in first
    counts = fuzz_sddl.main(500, 5)
    assert counts["parsed"] > 0 and counts["refused"] > 0 and sum(counts.values()) == 500
    assert f"{counts['parsed']} parsed" in first


@pytest.mark.parametrize("fault", ["crashes", "forgets"])
def test_a_planted_fault_is_caught(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def faulty(text: str, token: Token, object_type: ObjectType) -> SecurityDescriptor:
        if fault == "crashes" and "S-2" in text:
            raise IndexError("string index out of range")
        sd = parse_sddl(text, token, object_type)
        if fault == "forgets" and len(text) % 2 and sd.dacl:
            return SecurityDescriptor(sd.owner, sd.group, sd.dacl[1:], sd.flags)
        return sd

    monkeypatch.setattr(fuzz_sddl, "parse_sddl", faulty)
    with pytest.raises(AssertionError, match="broken by"):
        fuzz_sddl.main(20_000)
