"""Commands with a running broker and its clients, as programs: their streams, exit codes and what they leave behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extmem.api import Device
from extmem.testing._system import started_with
from extmem.testing.children import Peer, python_environment
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.systems import on_linux

DEADLINE = 300
LINUX = sys.platform == "linux"
BROKER = pytest.mark.linux_only("Windows has no broker")
BY_FD = pytest.mark.linux_only("a GPU is measured by fd and by /proc")
SIGNALS = pytest.mark.linux_only("on Windows Ctrl-C comes from a console, and no test has one")


@pytest.fixture
def house() -> Iterator[Runtime]:
    """A private runtime directory: what the command line shows is what the test did."""
    with Runtime() as private:
        yield private


def _environment(house: Runtime, **more: str) -> dict[str, str]:
    environment = python_environment({**house.environment, **more})
    environment.pop("COLUMNS", None)
    return {**environment, **more}


def _extmem(house: Runtime, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "extmem", *arguments],
        env=_environment(house, **more),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )


def _json(house: Runtime, *arguments: str) -> Any:
    done = _extmem(house, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _only_the_broker(house: Runtime) -> bool:
    return all("extmem.broker" in command or "broker/__main__" in command for command in house.processes().values())


# ps and broker


def test_ps_without_a_broker_is_an_empty_list_and_starts_none(house: Runtime) -> None:
    done = _extmem(house, "ps", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert ("No broker runs" if LINUX else "0 payloads, held by 0 processes") in done.stderr
    assert not house.processes()


def test_broker_status_without_a_broker_exits_1(house: Runtime) -> None:
    done = _extmem(house, "broker", "status", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, {"running": False, "other_versions": []})
    assert not house.processes()


def test_ps_shows_who_holds_what(house: Runtime) -> None:
    with Peer(env=house.environment) as exporter, Peer(env=house.environment) as importer:
        exporter("device = extmem.open_device(); memory = device.allocate((2, 3), 'float32', name='Frames')")
        importer("memory = extmem.open('frames'); handle = extmem.open_handle('frames', extmem.Access.READ)")
        (shown,) = _json(house, "ps")
        assert shown["names"] == ["Frames"] and shown["size"] == 24 and shown["share"] == "NT"
        holders = {holder["pid"]: holder for holder in shown["holders"]}
        assert set(holders) == {exporter.pid, importer.pid}
        assert holders[exporter.pid]["exporter"] and not holders[importer.pid]["exporter"]
        assert [handle["rights"] for handle in holders[importer.pid]["handles"]] == ["read"]
        drawn = _extmem(house, "ps")
        assert drawn.returncode == 0 and "array 2 x 3 float32" in drawn.stdout and "1 payload" in drawn.stderr
        narrow = _extmem(house, "ps", COLUMNS="40")
        assert "- name: Frames" in narrow.stdout.splitlines()
        importer("handle.close(); memory.close()")
        exporter("memory.close()")


@pytest.mark.windows_only("Linux has a broker, which the tests below are about")
def test_windows_needs_no_broker(house: Runtime) -> None:
    for command, code, shown in (
        ("status", 1, {"running": False, "other_versions": []}),
        ("stop", 0, {"was_running": False, "stopped": True}),
    ):
        done = _extmem(house, "broker", command, "--json")
        assert (done.returncode, json.loads(done.stdout)) == (code, shown)
        assert "Windows needs no broker: its kernel keeps names and handles" in done.stderr
    done = _extmem(house, "broker", "run")
    assert done.returncode == 1 and done.stderr.startswith("error: UnsupportedError: the broker runs on Linux only")
    assert not house.processes()


@BROKER
def test_broker_stop_refuses_while_others_use_it_and_then_stops(house: Runtime) -> None:
    with Peer(env=house.environment) as client:
        client("memory = extmem.open_device().allocate(64, name='kept')")
        status = _json(house, "broker", "status")
        assert status["running"] and status["clients"] == 1 and status["payloads"] == 1
        assert status["pid"] == house.broker_pid()
        refused = _extmem(house, "broker", "stop", "--json")
        assert refused.returncode == 1 and json.loads(refused.stdout) == {"was_running": True, "stopped": False}
        assert "--force" in refused.stderr
        client("memory.close()")
    wait_until(lambda: _json(house, "broker", "status")["clients"] == 0, "the client to be gone")
    assert _json(house, "broker", "stop") == {"was_running": True, "stopped": True}
    wait_until(lambda: house.broker_pid() is None, "the broker to leave")


@BROKER
def test_broker_status_shows_the_limit_the_reserve_and_the_shares(house: Runtime) -> None:
    with Peer(env=house.environment) as client:
        client("memory = extmem.open_device().allocate(64, name='kept')")
        before = _json(house, "broker", "status")
        assert before["limit"] - before["reserve"] - before["used"] > before["client_share"] > 0
        assert before["user_share"] >= before["client_share"]
        client("more = [extmem.open_device().allocate(64, name=f'{i}') for i in range(500)]")
        after = _json(house, "broker", "status")
        assert after["used"] >= before["used"] + 500 and after["client_share"] < before["client_share"]
        said = _extmem(house, "broker", "status").stdout
        assert f"of {after['limit']} used, {after['reserve']} in reserve" in said
        assert f"{after['client_share']} for one more client, {after['user_share']} for one more user" in said


@BROKER
def test_broker_run_serves_in_the_foreground_until_ctrl_c(house: Runtime) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "extmem", "broker", "run"],
        env=_environment(house, EXTMEM_BROKER_IDLE="300"),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        wait_until(lambda: _extmem(house, "broker", "status").returncode == 0, "the broker to listen")
        second = _extmem(house, "broker", "run")
        assert second.returncode == 1 and "another broker is running" in second.stderr
        assert "Traceback" not in second.stderr
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=DEADLINE)
    assert running.returncode == 0
    assert "has ended" in said


# demo


def test_the_demo_shows_all_that_it_promises_and_leaves_nothing(house: Runtime, tmp_path: Path) -> None:
    picture = tmp_path / "demo.png"
    done = _extmem(house, "demo", "--frames", "6", "--out", str(picture), "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["ok"] and shown["wrong"] == []
    assert shown["checked"] == 6 and shown["redrawn"] == [0, 2, 5]
    assert [refusal["by"] for refusal in shown["refusals"]] == ["NumPy", "the kernel", "the object manager"]
    assert all(refusal["error"] for refusal in shown["refusals"])
    (held,) = shown["held"]
    assert {holder["pid"] for holder in held["holders"]} == {shown["exporter"], shown["importer"]}
    assert shown["left"] == {"payloads": 0, "name": False, "descriptors": 0, "broker_descriptors": 0}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "6 of 6 frames" in done.stderr
    assert _only_the_broker(house)


def test_the_demos_story_is_told_on_stdout_and_its_progress_on_stderr(house: Runtime, tmp_path: Path) -> None:
    done = _extmem(house, "demo", "--frames", "2", "--out", str(tmp_path / "p.png"), COLUMNS="40")
    assert done.returncode == 0, done.stderr
    for part in (
        "Device: extmem host memory",
        "refused by the kernel",
        "- name: extmem demo",
        "Left behind: 0 payloads",
    ):
        assert part in done.stdout
    assert "Left behind" not in done.stderr and "\x1b" not in done.stdout + done.stderr


@SIGNALS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_leaves_nothing(house: Runtime, tmp_path: Path, number: int) -> None:
    picture = tmp_path / "demo.png"
    with subprocess.Popen(
        [sys.executable, "-m", "extmem", "demo", "--frames", "512", "--out", str(picture)],
        env=_environment(house),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as running:
        wait_until(lambda: len(house.processes()) >= 4, "the demo's processes")
        wait_until(lambda: _json(house, "ps") != [], "the payload")
        os.kill(running.pid, number)
        _, said = running.communicate(timeout=DEADLINE)
    if number == signal.SIGINT:
        assert running.returncode == 130
        assert said.splitlines()[-1] == "interrupted"
    else:
        assert running.returncode == 128 + number
    assert "Traceback" not in said
    assert not picture.exists()
    wait_until(lambda: _only_the_broker(house), lambda: f"the workers to end: {house.processes()}")
    wait_until(lambda: _json(house, "ps") == [], "the payload to go")


def test_a_demo_that_is_killed_leaves_nothing(house: Runtime, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "extmem", "demo", "--frames", "512", "--out", str(tmp_path / "demo.png")],
        env=_environment(house),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as running:
        wait_until(lambda: _json(house, "ps") != [], "the payload")
        running.kill()
    wait_until(lambda: _only_the_broker(house), lambda: f"the workers to end: {house.processes()}")
    wait_until(lambda: _json(house, "ps") == [], "the payload to go")


# bench: that it measures and cleans up; never how fast a busy machine is


@pytest.mark.slow("runs whole benchmarks")
@pytest.mark.parametrize(
    ("subject", "figures"),
    [
        ("open", ["open by name, 4 KiB", "open again in the same process", "pass 8 MiB"]),
        on_linux(
            "broker",
            ["p99 of opening", "opens per second", "memory of the broker", "objects left"],
            reason="Windows has no broker whose clients could be counted",
        ),
        ("checks", ["a checked import", "modules of numpy"]),
        ("start", ["open the host device in a new interpreter", "import extmem in a new interpreter"]),
        on_linux(
            "imports",
            ["shared memory of the machine", "fds left", "memory objects left"],
            reason="the cost of imports is read from /proc; tests/windows counts handles",
        ),
        on_linux("sync", ["wait_async, longer", "timelines left after 5"], reason="it measures futexes"),
    ],
)
def test_bench_prints_its_figures_and_ends_what_it_started(house: Runtime, subject: str, figures: list[str]) -> None:
    _prints_its_figures(house, subject, figures)


@pytest.mark.slow("runs whole benchmarks")
@BY_FD
def test_bench_measures_a_vulkan_device(house: Runtime, vulkan_device: Device) -> None:
    rows = _prints_its_figures(
        house,
        "vulkan",
        [
            "export, pass, import and bind 4 KiB, checked, against C",
            "open again in the same process, 1 MiB",
            "import, bind and map an fd of extmem, unchecked, against C",
            "memories and buffers of the VkDevice left",
            "payloads left after 3 rounds of kill -9",
        ],
        "--kills=3",
    )
    assert not [row for row in rows if row["unit"] == "failed"], rows


@pytest.mark.slow("runs whole benchmarks")
@BY_FD
def test_bench_tells_what_it_could_not_measure(house: Runtime, vulkan_device: Device, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho no C today >&2\nexit 1\n")
    compiler.chmod(0o755)
    done = _extmem(house, "bench", "vulkan", "--quick", "--json", "--kills=1", CC=str(compiler))
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 1 and "passing failed" in done.stderr and "no C today" in done.stderr
    assert not rows["passing: could not be measured"]["ok"] and not rows["importing: could not be measured"]["ok"]
    assert rows["payloads left after 1 rounds of kill -9"]["ok"], "the other parts are measured all the same"
    assert not house.processes()


def _prints_its_figures(house: Runtime, subject: str, figures: list[str], *options: str) -> list[dict[str, Any]]:
    done = _extmem(house, "bench", subject, "--quick", "--json", *options)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (0 if all(row["ok"] for row in rows) else 1), done.stderr
    assert all(list(row) == ["name", "value", "unit", "bound", "ok"] for row in rows)
    for figure in figures:
        assert any(figure in row["name"] for row in rows), (figure, rows)
    # What is counted and not timed must be true on any machine.
    assert all(row["ok"] for row in rows if row["unit"] in ("left", "modules", "more")), rows
    assert f"{subject}:" in done.stderr
    # It had a broker of its own and did not use that of the test.
    assert not house.processes()
    return rows


@pytest.mark.windows_only("Linux has all of them")
def test_what_bench_cannot_measure_is_reported(house: Runtime) -> None:
    for subject in ("broker", "imports", "tensors", "vulkan", "cuda"):
        done = _extmem(house, "bench", subject, "--quick", "--json")
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith(f"error: UnsupportedError: the subject {subject} needs Linux")
        assert "choose from: open, checks, start" in done.stderr


@SIGNALS
def test_an_interrupted_bench_ends_its_processes(house: Runtime) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "extmem", "bench", "open", "--json"],
        env=_environment(house, TMPDIR=str(house.path)),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        # Other benches may run meanwhile; this one's processes have their temporary files here.
        mine = ("TMPDIR", str(house.path))
        wait_until(lambda: any("_worker" in line for line in started_with(*mine).values()), "the bench's processes")
        running.send_signal(signal.SIGINT)
        out, said = running.communicate(timeout=DEADLINE)
    assert running.returncode == 130 and out == ""
    assert said.splitlines()[-1] == "interrupted" and "Traceback" not in said
    assert not list(house.path.glob("extmem-bench-*"))


# streams


def test_a_reader_that_has_seen_enough_is_no_error(house: Runtime) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "extmem", "rules"],
        env=_environment(house),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        said = running.stderr.read()
    assert running.returncode == 0 and "Traceback" not in said and "BrokenPipe" not in said


@pytest.mark.parametrize(
    ("arguments", "code", "both"),
    [
        ("devices", 0, False),
        ("devices", 0, True),
        ("explain nothing", 1, False),
        ("broker status --json", 1, True),
        ("--help", 0, False),
        ("--version", 0, False),
    ],
)
def test_a_reader_that_has_gone_changes_no_exit_code(house: Runtime, arguments: str, code: int, both: bool) -> None:
    """The reader of stdout, or of both streams, has ended before the first write."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "extmem", *arguments.split()],
            env=_environment(house),
            stdout=writing,
            stderr=writing if both else subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            stdin=subprocess.DEVNULL,
        )
    finally:
        os.close(writing)
    assert done.returncode == code, done.stderr
    assert both or not re.search("Traceback|BrokenPipe|Exception", done.stderr)


@pytest.mark.linux_only("/dev/full is Linux's")
@pytest.mark.parametrize(
    ("arguments", "more"),
    [("ps --json", {}), ("--help", {}), ("--version", {}), ("--version", {"PYTHONUNBUFFERED": "1"})],
)
def test_output_that_cannot_be_written_is_an_error(house: Runtime, arguments: str, more: dict[str, str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "extmem", *arguments.split()],
            env={**_environment(house), "PYTHONUNBUFFERED": "", **more},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            stdin=subprocess.DEVNULL,
        )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("error: OSError: [Errno 28]") == 1
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


# completion


@pytest.mark.linux_only("bash is a Unix shell")
def test_bash_completes_with_the_script_of_the_command(house: Runtime) -> None:
    asked = (
        'eval "$(_EXTMEM_COMPLETE=bash_source ./extmem)"; '
        "COMP_WORDS=(extmem de) COMP_CWORD=1; _extmem_completion ./extmem; echo ${COMPREPLY[@]}"
    )
    program = house.path / "extmem"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m extmem "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", asked],
        env=_environment(house),
        cwd=house.path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )
    assert sorted(done.stdout.split()) == ["demo", "devices"], done


def test_an_error_is_words_and_no_traceback(house: Runtime, tmp_path: Path) -> None:
    arguments, more, shown = (
        (
            ("demo", "--frames", "1", "--out", str(tmp_path / "p.png")),
            {"EXTMEM_BROKER_START": "never"},
            "no broker listens",
        )
        if LINUX
        else (("broker", "run"), {}, "the broker runs on Linux only")
    )
    done = _extmem(house, *arguments, **more)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"error: UnsupportedError: {shown}") and "Traceback" not in done.stderr
    traced = _extmem(house, *arguments, **more, EXTMEM_TRACEBACK="1")
    assert traced.returncode == 1 and "Traceback" in traced.stderr
