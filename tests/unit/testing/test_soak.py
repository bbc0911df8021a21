"""The soak's own checkers: a short run passes, and each planted fault is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from scripts import soak


@pytest.mark.slow("kills an exporter, an importer or the broker in each of its rounds")
def test_a_short_run_prints_a_json_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(["--iterations", "0", "--rounds", "3", "--seed", "11"]) == 0
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert [figure["ok"] for figure in figures] == [True] * 4
    assert figures[0]["unit"] == "s" and figures[0]["value"] > 0, "in one of them the broker dies between two steps"
    assert all(set(figure) == {"name", "value", "unit", "bound", "ok"} for figure in figures)
    assert "3 of 3 rounds" in err


def test_the_same_seed_makes_the_same_rounds() -> None:
    made = [
        (r.victim, r.at, r.in_the_middle, r.data)
        for r in (soak.Round(None, None, "5/1"), soak.Round(None, None, "5/1"))
    ]  # type: ignore[arg-type]
    assert made[0] == made[1]
    many = [soak.Round(None, None, f"1/{index}") for index in range(500)]  # type: ignore[arg-type]
    assert {(r.victim, r.at, r.in_the_middle) for r in many} >= {
        (victim, at, True) for victim in soak.VICTIMS for at in (0, len(soak.STEPS) - 1)
    }


@pytest.fixture
def rounds(own_runtime: Runtime) -> Any:
    with Peer(env=own_runtime.environment) as witness:
        witness(soak.PRELUDE)
        yield lambda seed: soak.Round(own_runtime, witness, seed)


def test_a_lost_payload_is_told(rounds: Any) -> None:
    one = rounds("planted")
    one.held["exporter", "memory"] = "object"  # the ledger says so, and nobody holds it
    with pytest.raises(soak.Broken, match="lost, although held"):
        one.look()


def test_other_bytes_are_told(rounds: Any) -> None:
    one = rounds("planted")
    one.witness("mine = export(NT, name)\nput(mine, b'something else!!')\nNone", name=one.name)
    one.held["exporter", "memory"] = "object"
    with pytest.raises(soak.Broken, match="reads b'something else!!'"):
        one.look()
    one.witness("mine.close()")


def test_a_name_that_outlives_its_object_is_told(rounds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = rounds("planted")
    monkeypatch.setattr(soak, "PATIENCE", 0.2)
    one.witness("mine = export(NT, name)\nNone", name=one.name)
    with pytest.raises(soak.Broken, match="to go with its last holder"):
        one.look()
    one.witness("mine.close()")
    one.look()


def test_a_failing_fuzzer_is_told(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fuzz").mkdir()
    (tmp_path / "fuzz" / "fuzz_bad.py").write_text("import sys\nprint('broken by this')\nsys.exit(1)\n")
    (tmp_path / "fuzz" / "fuzz_good.py").write_text("print('fine')\n")
    monkeypatch.setattr(soak, "ROOT", tmp_path)
    said: list[str] = []
    assert not soak.fuzz("fuzz_bad", 10, 1, said.append)["ok"]
    assert any("broken by this" in text for text in said)
    assert soak.fuzz("fuzz_good", 10, 1, said.append)["ok"]
