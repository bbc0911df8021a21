"""The part of the soak with channels: a short run passes, and what it must not find is reported."""

from __future__ import annotations

import pytest

import extmem
from scripts.soak import channels
from scripts.soak.__main__ import main
from tests.meta.test_soak import options, printed


@pytest.mark.slow("kills writers and readers of a channel")
@pytest.mark.timeout(300)
def test_a_short_run_of_channels_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*options(frames=200), "--seed", "2"]) == 0
    found, err = printed(capsys)
    assert found["channels: frames checked"]["value"] >= 200 and found["channels: processes killed"]["value"] == 4
    for name in ("torn reads that were accepted", "left after kills", "crashes of other workers"):
        assert found[name]["value"] == found[name]["bound"] == 0
    assert "of 200 frames of channels" in err


@pytest.mark.parametrize(
    ("counts", "name"),
    [
        ({"torn": 1}, "torn reads that were accepted"),
        ({"payloads": 1}, "left after kills"),
        ({"descriptors": 1}, "left after kills"),
        ({"files": 1}, "left after kills"),
        ({"reads": 9}, "channels: frames checked"),
        ({"writers": 0}, "channels: processes killed"),
    ],
)
def test_planted_results_of_channels_are_reported(
    counts: dict[str, int], name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = channels.Result(reads=10, writers=2, holders=2)
    monkeypatch.setattr(channels, "storm", lambda *arguments: good)
    assert main(options(frames=10)) == 0
    capsys.readouterr()
    monkeypatch.setattr(channels, "storm", lambda *arguments: good._replace(**counts))
    assert main(options(frames=10)) == 1
    found, _ = printed(capsys)
    assert not found[name]["ok"]


def test_a_storm_that_breaks_is_a_crash(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*arguments: object) -> None:
        raise extmem.PeerError("the reader has ended")

    monkeypatch.setattr(channels, "storm", broken)
    assert main(options(frames=10)) == 1
    found, err = printed(capsys)
    assert found["crashes of other workers"]["value"] == 1 and "BROKEN channels: the reader has ended" in err
