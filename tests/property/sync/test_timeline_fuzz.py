"""The fuzzer of timeline pages: a short run holds, and each planted fault is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import extmem
from extmem.core import host_waits, wait_errors
from extmem.sharing import timeline_page as layout

pytestmark = pytest.mark.linux_only("pages of Windows have no file that another mapping could be made of")


def test_a_short_run_holds(capsys: pytest.CaptureFixture[str]) -> None:
    from fuzz import fuzz_timeline

    assert fuzz_timeline.main(["--iterations", "150", "--seed", "3"]) == 0
    text = capsys.readouterr().out
    assert "150 rounds with seed 3" in text and text.rstrip().endswith("0 fds leaked")
    for outcome in ("reached", "timed out", "signaled"):  # a page that tells of a death is rarer
        assert f" {outcome}" in text


def _first(waits: Any, *, timeout: float | None = None) -> int:
    """A wait for any that returns the first index, whichever is reached."""
    extmem.api.sync_functions.wait_any(waits, timeout=timeout)
    return 0


def _hanging(record: Any, value: int, timeout: float | None) -> None:
    wait_errors.check_reached(record, value, timeout)
    raise AttributeError("a page with a strange state")


def _impatient(record: Any, value: int, timeout: float | None) -> None:
    """A wait that times out, although the value is reached."""
    reached = record.native.counter()
    raise wait_errors.timed_out(record, value, reached, timeout)


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "an index that is not reached": lambda patch: patch.setattr(extmem, "wait_any", _first),
    "an error of another kind": lambda patch: patch.setattr(host_waits, "wait", _hanging),
    "a timeout of what is reached": lambda patch: patch.setattr(host_waits, "wait", _impatient),
    "a table without bounds": lambda patch: patch.setattr(
        layout, "signalers", lambda page: [layout.Signaler(99, 0, 0, True)]
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fuzz import fuzz_timeline

    FAULTS[fault](monkeypatch)
    with pytest.raises((AssertionError, AttributeError)) as found:
        fuzz_timeline.run(2000, 3)
    assert any("seed 3, round" in note for note in found.value.__notes__)
