"""The descriptor's fuzzer: it passes with the library, and finds planted faults."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from extmem.sharing.descriptor import contents, descriptor, sync
from fuzz import fuzz_descriptor


def test_a_short_run_finds_nothing_and_sees_every_outcome() -> None:
    outcomes = fuzz_descriptor.run(4000, seed=1)
    assert sum(outcomes.values()) == 4000
    parsed = ("parsed", "parsed as sync", "refused")
    in_files = {f"{one} in a memfd" for one in parsed} if sys.platform == "linux" else set()
    assert set(outcomes) == {*parsed} | in_files


def test_the_same_seed_gives_the_same_run() -> None:
    assert fuzz_descriptor.run(500, seed=3) == fuzz_descriptor.run(500, seed=3)


def _parse_anything(cls: type[descriptor.Descriptor], data: bytes) -> descriptor.Descriptor:
    raise IndexError("planted")


@pytest.mark.parametrize(
    ("where", "name", "fault", "error"),
    [
        (descriptor, "check_array", lambda array, size: None, AssertionError),
        (descriptor.Descriptor, "parse", classmethod(_parse_anything), IndexError),
        (descriptor.Descriptor, "_complain", lambda self: None, AssertionError),
        (sync.SyncDescriptor, "_check", lambda self: None, AssertionError),
    ],
)
def test_a_planted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, fault: Callable[..., object], error: type[Exception]
) -> None:
    monkeypatch.setattr(where, name, fault)
    with pytest.raises(error) as caught:
        fuzz_descriptor.run(20_000, seed=1)
    assert any("seed 1, round" in note for note in caught.value.__notes__)
    assert contents.check_array is not fault


def test_it_runs_from_the_command_line() -> None:
    command = [sys.executable, "-m", "fuzz.fuzz_descriptor", "--iterations", "200", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("200 rounds with seed 5: ") and "0 fds leaked" in done.stdout
