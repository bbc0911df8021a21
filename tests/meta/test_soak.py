"""The checks of the soak: a short run of each part passes, and each planted fault is reported."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from scripts.soak import arbitrary, changing, figures, fuzzing, killing, using, waiting, workers
from scripts.soak.__main__ import main
from tests.layer import collector

NOTHING = {
    "iterations": 0,
    "minutes": 0,
    "interrupts": 0,
    "attempts": 0,
    "programs": 0,
    "rounds": 0,
    "waits": 0,
    "changes": 0,
}


def options(**parts: float) -> list[str]:
    """Return a command line with only these parts."""
    return [word for name, value in {**NOTHING, **parts}.items() for word in (f"--{name}", str(value))]


def printed(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """Return the figures by name, and the text on stderr."""
    out, err = capsys.readouterr()
    listed = json.loads(out)
    assert all(set(figure) == {"name", "value", "unit", "bound", "ok"} for figure in listed)
    return {figure["name"]: figure for figure in listed}, err


# -- the command line


@pytest.mark.slow("kills an exporter, an importer or the broker in each of its rounds")
def test_a_short_run_of_killing_prints_a_json_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*options(rounds=3), "--seed", "11"]) == 0
    found, err = printed(capsys)
    assert len(found) == 6 and all(figure["ok"] for figure in found.values())
    back = found["kill: median until a killed broker's name is back"]
    assert back["unit"] == "s" and back["value"] > 0, "in one of them the broker dies between two steps"
    assert found["crashes of other workers"]["value"] == found["broker ended"]["value"] == 0
    assert "3 of 3 rounds" in err


@pytest.mark.slow("runs each program of threads for a second and interrupts the operations")
@pytest.mark.timeout(300)
def test_a_short_run_of_threads_and_interrupts_counts_what_each_looked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(using, "kinds", lambda: ["host"])
    assert main(options(minutes=5 / 60, interrupts=100)) == 0
    found, err = printed(capsys)
    assert found["threads: rounds"]["value"] >= len(using.PROGRAMS) and found["interrupts"]["value"] >= 100
    zeros = {
        "crashes by threads",
        "crashes of other workers",
        "workers that failed or hung",
        "wrong bytes",
        "errors that no call may raise",
        f"lost after {found['interrupts']['value']} interrupts",
        "double closes",
        "broker ended",
    }
    assert {name for name, figure in found.items() if figure["bound"] == figure["value"] == 0} >= zeros
    assert "escalations" not in found, "that part was left out"
    for program in ("names --threads 16", "races", "closing", "tests.interrupts"):
        assert program in err


def test_without_a_driver_it_is_reported_that_arbitrary_programs_do_not_run() -> None:
    totals = figures.Totals()
    found = arbitrary.run_programs(5, 1, ["host"], totals, lambda _text: None)
    assert [entry["value"] for entry in found] == [None] and not totals.figures()


def test_what_arbitrary_programs_find_is_reported(monkeypatch: pytest.MonkeyPatch, vulkan_device: object) -> None:
    if not collector.installed():
        pytest.skip("no Khronos validation layer here")
    worker_figures = {"programs": 7, "deaths": 1, "layer messages": 2, "errors that escaped": 3, "smallest share": 0.2}
    monkeypatch.setattr(workers, "run", lambda *_args, **_more: workers.Outcome(1, worker_figures, ""))
    totals = figures.Totals()
    found = arbitrary.run_programs(7, 1, ["vulkan"], totals, lambda _text: None)
    assert [(entry["value"], entry["ok"]) for entry in found] == [(7, True), (0.2, False)]
    assert {entry["name"]: entry["value"] for entry in totals.figures()} == {
        "errors that no call may raise": 3,
        "deaths of processes by arbitrary calls": 1,
        "layer messages": 2,
    }


def test_attempts_of_other_users_are_counted_or_reported_as_not_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(options(attempts=1)) == 0
    found, err = printed(capsys)
    assert found["attempts of other users: did not run, needs root"]["value"] is None
    assert "escalations" not in found and "did not run" in err
    monkeypatch.undo()
    if os.geteuid() == 0:
        assert main(options(attempts=1)) == 0
        found, _ = printed(capsys)
        assert found["attempts of other users"]["value"] >= 1 and found["escalations"]["value"] == 0


def test_each_count_that_is_not_zero_makes_the_exit_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(options()) == 0 and printed(capsys)[0] == {}
    for name in figures.ZEROS:

        def planted(count: int, seed: int, totals: figures.Totals, report: figures.Report, name: str = name) -> Any:
            totals.add(name, 1)
            return figures.figure("attempts", 1, "attempts", 1, True)

        monkeypatch.setattr(using, "try_as_others", planted)
        assert main(options(attempts=1)) == 1
        (found,) = [figure for title, figure in printed(capsys)[0].items() if title.startswith(name)]
        assert found["value"] == 1 and not found["ok"]
    with pytest.raises(KeyError):
        figures.Totals().add("misspelt", 1)


# -- workers


ENDS = {
    "good": "print('{\"rounds\": 3}')",
    "crash": "import ctypes\nctypes.string_at(0)",
    "abort": "import os\nos.abort()",
    "one": "print('broken by this')\nraise SystemExit(1)",
    "hang": "import time\ntime.sleep(600)",
    "mute": "",
    "words": "print('[1]')",
}


def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, **more: Any) -> tuple[Any, figures.Totals, str]:
    """Run a planted program as a worker. Return its outcome, what was counted, and its output."""
    (tmp_path / f"planted_{name}.py").write_text(ENDS[name])
    monkeypatch.setattr(workers, "ROOT", tmp_path)
    totals, messages = figures.Totals(), list[str]()
    outcome = workers.run([f"planted_{name}"], more.pop("limit", 60), totals, messages.append, **more)
    return outcome, totals, "\n".join(messages)


@pytest.mark.parametrize(("name", "signal"), [("crash", "SIGSEGV"), ("abort", "SIGABRT")])
def test_a_worker_that_a_signal_ends_is_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, signal: str
) -> None:
    outcome, totals, messages = worker(tmp_path, monkeypatch, name, crashes=figures.CRASHES_BY_THREADS)
    assert outcome.code < 0 and f"it was ended by {signal}" in messages and "Fatal Python error" in messages
    assert totals[figures.CRASHES_BY_THREADS] == 1 and totals[figures.CRASHES] == totals[figures.FAILED] == 0
    assert not all(figure["ok"] for figure in totals.figures())


def test_a_worker_that_ends_well_is_counted_as_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, totals, messages = worker(tmp_path, monkeypatch, "good")
    assert outcome[:2] == (0, {"rounds": 3}) and not messages
    assert [figure["value"] for figure in totals.figures()] == [0, 0]


@pytest.mark.parametrize(("name", "words"), [("one", "exit code 1"), ("hang", "did not end in time")])
def test_a_worker_that_fails_or_hangs_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    _, totals, messages = worker(tmp_path, monkeypatch, name, limit=3 if name == "hang" else 60)
    assert totals[figures.FAILED] == 1 and totals[figures.CRASHES] == 0 and words in messages
    assert ("broken by this" in messages) == (name == "one")


@pytest.mark.parametrize("name", ["mute", "words"])
def test_a_worker_that_reports_no_counts_has_done_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    outcome, _, _ = worker(tmp_path, monkeypatch, name)
    assert outcome[:2] == (0, {})
    monkeypatch.setattr(using.workers, "run", lambda *arguments, **more: outcome)
    found = using.use_in_threads(1, 1, ["host"], figures.Totals(), lambda text: None)
    assert [figure["ok"] for figure in found] == [False, False]
    assert not using.interrupt(5, 1, ["host"], figures.Totals(), lambda text: None)["ok"]


def test_what_a_worker_reports_is_counted_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    worker_figures = {
        "rounds": 1,
        "interrupts": 9,
        "attempts": 9,
        "wrong bytes": 2,
        "errors that escaped": 3,
        "lost": 4,
        "closed twice": 5,
        "broker ended": 6,
        "escalations": 7,
        "wrong": 8,
    }

    def planted(program: Sequence[str], *arguments: Any, **more: Any) -> workers.Outcome:
        return workers.Outcome(1, worker_figures, "")

    monkeypatch.setattr(workers, "run", planted)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    messages: list[str] = []
    of_threads, of_interrupts, of_users = figures.Totals(), figures.Totals(), figures.Totals()
    using.use_in_threads(1, 1, ["host"], of_threads, messages.append)
    using.interrupt(5, 1, ["host", "vulkan"], of_interrupts, messages.append)
    using.try_as_others(5, 1, of_users, messages.append)
    programs = len(using.PROGRAMS)
    assert {f["name"]: f["value"] for f in of_threads.figures()} == {
        "wrong bytes": 2 * programs,
        "errors that no call may raise": 3 * programs,
        "broker ended": 6 * programs,
    }
    assert {f["name"]: f["value"] for f in of_interrupts.figures()} == {
        "wrong bytes": 4,
        "errors that no call may raise": 6,
        "lost after 18 interrupts": 8,
        "double closes": 10,
        "broker ended": 12,
    }
    assert {f["name"]: f["value"] for f in of_users.figures()} == {
        "errors that no call may raise": 8,
        "escalations": 7,
        "broker ended": 6,
    }


def test_a_failing_fuzzer_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fuzz").mkdir()
    (tmp_path / "fuzz" / "fuzz_bad.py").write_text("import sys\nprint('broken by this')\nsys.exit(1)\n")
    (tmp_path / "fuzz" / "fuzz_good.py").write_text("print('fine')\n")
    monkeypatch.setattr(workers, "ROOT", tmp_path)
    messages: list[str] = []
    totals = figures.Totals()
    assert not fuzzing.fuzz("fuzz_bad", 10, 1, totals, messages.append)["ok"]
    assert any("broken by this" in text for text in messages) and totals[figures.FAILED] == 1
    assert fuzzing.fuzz("fuzz_good", 10, 1, totals, messages.append)["ok"]
    assert any("fine" in text for text in messages) and totals[figures.FAILED] == 1


# -- rounds of killing


def test_the_same_seed_makes_the_same_rounds() -> None:
    made = [
        (r.victim, r.at, r.in_the_middle, r.data)
        for r in (killing.Round(None, None, "5/1"), killing.Round(None, None, "5/1"))
    ]  # type: ignore[arg-type]
    assert made[0] == made[1]
    many = [killing.Round(None, None, f"1/{index}") for index in range(500)]  # type: ignore[arg-type]
    assert {(r.victim, r.at, r.in_the_middle) for r in many} >= {
        (victim, at, True) for victim in killing.VICTIMS for at in (0, len(killing.STEPS) - 1)
    }


@pytest.fixture
def rounds(own_runtime: Runtime) -> Any:
    with Peer(env=own_runtime.environment) as witness:
        witness(killing.PRELUDE)
        yield lambda seed: killing.Round(own_runtime, witness, seed)


def test_a_lost_payload_is_reported(rounds: Any) -> None:
    one = rounds("planted")
    one.held["exporter", "memory"] = "object"  # the ledger has the round, which nobody holds
    with pytest.raises(killing.Broken, match="lost, although held"):
        one.look()


def test_other_bytes_are_reported(rounds: Any) -> None:
    one = rounds("planted")
    one.witness("mine = export(NT, name)\nput(mine, b'something else!!')\nNone", name=one.name)
    one.held["exporter", "memory"] = "object"
    with pytest.raises(killing.Broken, match="reads b'something else!!'"):
        one.look()
    one.witness("mine.close()")


def test_a_name_that_outlives_its_object_is_reported(rounds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = rounds("planted")
    monkeypatch.setattr(killing, "PATIENCE", 0.2)
    one.witness("mine = export(NT, name)\nNone", name=one.name)
    with pytest.raises(killing.Broken, match="to end with its last holder"):
        one.look()
    one.witness("mine.close()")
    one.look()


def planted_step(monkeypatch: pytest.MonkeyPatch, rounds: Any, source: str) -> Any:
    """A round with this last step of the importer; its victim, the exporter, is killed before the first step."""
    last = killing.Step("importer", source)
    monkeypatch.setattr(killing, "STEPS", (killing.STEPS[0], last))
    one = rounds("planted")
    one.victim, one.at, one.in_the_middle = "exporter", 0, False
    return one


@pytest.mark.parametrize("when", ["ctypes.string_at(0)", "import atexit; atexit.register(ctypes.string_at, 0)"])
def test_a_peer_that_crashes_is_reported(monkeypatch: pytest.MonkeyPatch, rounds: Any, when: str) -> None:
    rounds("planted").witness("own = export(NT, 'keeps the broker')")
    one = planted_step(monkeypatch, rounds, f"import ctypes; {when}")
    with pytest.raises(AssertionError, match="exit code -11|ended with -11"):
        one.run()
    assert one.crashed == ["importer was ended by SIGSEGV"]


def test_a_broker_that_ends_without_being_the_victim_is_reported(
    monkeypatch: pytest.MonkeyPatch, rounds: Any, own_runtime: Runtime
) -> None:
    rounds("planted").witness("own = export(NT, 'keeps the broker')")
    one = planted_step(monkeypatch, rounds, f"os.kill({own_runtime.broker_pid()}, 9)")
    with pytest.raises(killing.Broken, match="was not the victim"):
        one.run()
    assert one.broker_ended and not one.crashed


def test_a_round_without_a_fault_is_not_reported(monkeypatch: pytest.MonkeyPatch, rounds: Any) -> None:
    rounds("planted").witness("own = export(NT, 'keeps the broker')")
    one = planted_step(monkeypatch, rounds, "pass")
    one.run()
    assert not one.broker_ended and not one.crashed


# -- waits


@pytest.mark.slow("kills processes that wait for timelines")
@pytest.mark.timeout(300)
def test_a_short_run_of_waits_counts_what_it_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*options(waits=4), "--seed", "5"]) == 0
    found, err = printed(capsys)
    assert found["waits: rounds"]["value"] == 4 and found["waits: rounds that broke"]["value"] == 0
    for name in ("waiters stuck", "wrong values", "left after kills", "crashes of other workers", "broker ended"):
        assert found[name]["value"] == found[name]["bound"] == 0
    assert "4 of 4 rounds" in err


PLANTED = {
    "waiters stuck": ("SIGNALING", "timeline.signal(number)", "number < values and timeline.signal(number)"),
    "wrong values": ("WAITING", "value = self.timeline.value", "value = self.timeline.value - 9999"),
    "left after kills": ("PRELUDE", "device = ", "import tempfile\nkept = []\ndevice = "),
}


@pytest.mark.linux_only("there is no broker on Windows that could be killed")
@pytest.mark.slow("waits until a wait is taken for stuck")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_of_waits_is_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last value is not signaled; a value is too small; the waiter keeps a file."""
    part, text, planted = PLANTED[name]
    source = getattr(waiting, part)
    assert text in source
    monkeypatch.setattr(waiting, part, source.replace(text, planted))
    if name == "left after kills":
        keeping = waiting.WAITING.replace("def leave():", "def leave():\n    kept.append(tempfile.TemporaryFile())")
        monkeypatch.setattr(waiting, "WAITING", keeping)
    monkeypatch.setattr(waiting, "PATIENCE", 3.0)
    monkeypatch.setattr(waiting, "VALUES", 20)
    monkeypatch.setattr(waiting, "VICTIMS", ("nobody",))
    totals = figures.Totals()
    told: list[str] = []
    waiting.wait_rounds(1, 1, totals, told.append)
    counted = {figure["name"]: figure["value"] for figure in totals.figures()}
    assert counted[name] >= 1, told


# -- changes


@pytest.fixture
def large_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a copy take so long that some of 500 overlap with an update, also where both processes share a processor."""
    monkeypatch.setattr(changing, "ELEMENTS", 1_000_000)


@pytest.mark.slow("starts a broker and two processes")
@pytest.mark.usefixtures("large_arrays")
def test_a_short_run_of_changes_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options(changes=500)) == 0
    found, err = printed(capsys)
    assert found["changes: rounds"]["value"] == 500 and found["torn reads that were accepted"]["value"] == 0
    assert found["changes: reads during an update"]["value"] > 0 and "500 of 500 rounds of changes" in err


@pytest.mark.slow("starts a broker and two processes")
@pytest.mark.usefixtures("large_arrays")
@pytest.mark.parametrize(
    ("part", "words", "planted"),
    [
        ("LOOKING", "if look.changed:", "if False:"),
        ("UPDATING", "array[:] = number", "array[1:] = number"),
        ("UPDATING", "        array[:] = number", "        pass\n    array[:] = number"),
    ],
    ids=["every read is accepted", "an element is left out", "bytes are written after the block"],
)
def test_planted_torn_reads_are_counted(
    part: str, words: str, planted: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = getattr(changing, part)
    assert words in source
    monkeypatch.setattr(changing, part, source.replace(words, planted))
    assert main(options(changes=500)) == 1
    found, _ = printed(capsys)
    assert found["torn reads that were accepted"]["value"] > 0


@pytest.mark.slow("starts a broker and two processes")
def test_an_update_that_fails_is_a_round_that_did_not_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changing, "UPDATING", "memory.close()\n" + changing.UPDATING)
    assert main(options(changes=10)) == 1
    found, err = printed(capsys)
    assert not found["changes: rounds"]["ok"] and "BROKEN changes" in err
