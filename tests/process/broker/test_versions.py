"""Two versions of extmem on one machine: each has its broker, and an error names the other version and what to do.

The second version is a copy of the package whose wire format has another number.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import extmem
from extmem.manager.linux.search import other_versions
from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from extmem.wire import PROTOCOL_VERSION
from extmem.wire.runtime_dir import RuntimeDir, brokers_in
from tests.process.broker.conftest import Start

OTHER_VERSION = PROTOCOL_VERSION + 1
BOTH = (f"version {OTHER_VERSION}", f"version {PROTOCOL_VERSION}", "same version of extmem")


@pytest.fixture(scope="module")
def other_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the other version is installed."""
    root = tmp_path_factory.mktemp("other")
    package = Path(extmem.__file__).parent
    shutil.copytree(package, root / "extmem", ignore=shutil.ignore_patterns("__pycache__"))
    limits = root / "extmem" / "wire" / "limits.py"
    text, count = re.subn(
        r"PROTOCOL_VERSION: Final = \d+", f"PROTOCOL_VERSION: Final = {OTHER_VERSION}", limits.read_text()
    )
    assert count == 1
    limits.write_text(text)
    return root


@pytest.fixture
def environment(own_runtime: Runtime, other_root: Path) -> dict[str, str]:
    return {**own_runtime.environment, "PYTHONPATH": str(other_root), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def other(start: Start, environment: dict[str, str], other_root: Path) -> Peer:
    peer = start(env=environment)
    assert peer("extmem.__file__") == str(other_root / "extmem" / "__init__.py")
    return peer


def brokers(runtime: Runtime) -> dict[int, int]:
    return {broker.version: broker.pid for broker in brokers_in(RuntimeDir(runtime.path))}


def run_extmem(runtime: Runtime, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "extmem", *arguments],
        env={**os.environ, **runtime.environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(autouse=True)
def no_broker_of_the_other_version_is_left(own_runtime: Runtime) -> Iterator[None]:
    yield
    for broker in other_versions(RuntimeDir(own_runtime.path)):
        os.kill(broker.pid, 15)
    wait_until(lambda: not other_versions(RuntimeDir(own_runtime.path)), "the other broker to end")


def test_with_only_a_broker_of_another_version_the_commands_name_it(own_runtime: Runtime, other: Peer) -> None:
    other("a = share('x', b'other')")
    pid = brokers(own_runtime)[OTHER_VERSION]
    for command in (["ps"], ["broker", "status"], ["broker", "stop"]):
        done = run_extmem(own_runtime, *command)
        assert f"version {OTHER_VERSION} of the wire format, process {pid}, at" in done.stderr
        assert "No broker of this version" in done.stderr
        assert "nothing is shared" not in done.stderr and "No broker runs" not in done.stderr
    assert brokers(own_runtime) == {OTHER_VERSION: pid}


def test_each_version_has_its_broker_names_and_files(own_runtime: Runtime, start: Start, other: Peer) -> None:
    mine = start()
    other("a = share('x', b'other')")
    mine("a = share('x', b'mine.')")
    assert (mine("reads('x')"), other("reads('x')"), start()("reads('x')")) == (b"mine.", b"other", b"mine.")
    assert (mine("m.status().version"), other("m.status().version")) == (PROTOCOL_VERSION, OTHER_VERSION)
    pids = brokers(own_runtime)
    assert pids == {PROTOCOL_VERSION: mine("m.status().pid"), OTHER_VERSION: other("m.status().pid")}
    assert len(set(pids.values())) == 2
    names = {path.name for path in own_runtime.path.iterdir()}
    for version in pids:
        assert {f"broker.{version}.sock", f"broker.{version}.lock", f"broker.{version}.key"} <= names
        assert {f"clients.{version}.json", f"start.{version}.lock", f"broker.{version}.log"} <= names


def test_the_end_of_one_is_not_noticed_by_the_other(own_runtime: Runtime, start: Start, other: Peer) -> None:
    mine = start()
    mine("a = share('x', b'mine.')")
    other("a = share('x', b'other')")
    before = brokers(own_runtime)
    os.kill(before[OTHER_VERSION], 9)
    assert other("reads('x')") == b"other"
    own_runtime.kill_broker()
    assert mine("reads('x')") == b"mine." and other("reads('x')") == b"other"
    assert mine("m.stop()") is True or mine("m.stop(force=True)") is True
    assert mine("reads('x')") == b"mine."


def test_a_name_of_the_other_version_is_not_found_and_the_error_names_it(start: Start, other: Peer) -> None:
    mine = start()
    other("a = share('theirs', b'other')")
    error = mine.fails("m.import_by_name('theirs')")
    assert error.is_a("NameNotFoundError") and all(part in error.message for part in BOTH), error.message
    mine("a = share('mine')")
    error = other.fails("m.open_handle('mine', READ)")
    assert error.is_a("NameNotFoundError") and all(part in error.message for part in BOTH), error.message


def test_a_ticket_of_the_other_version_is_refused_by_its_number(start: Start, other: Peer) -> None:
    mine = start()
    mine("a = share('x')")
    ticket = other("a = share('x')\nm.offer(reference=a.number)")
    for call in ("m.claim(ticket)", "m.withdraw(ticket)", "m.bind_offer(ticket, os.getpid())"):
        error = mine.fails(call, ticket=ticket)
        assert error.is_a("InvalidHandleError") and all(part in error.message for part in BOTH), error.message
    assert other("m.withdraw(ticket)", ticket=ticket) is True
    error = mine.fails("m.claim(bytes(16))")
    assert "version 2 of the wire format" in error.message
    error = mine.fails("m.claim(bytes(15))")
    assert "17 bytes, this has 15" in error.message


def test_a_handle_of_the_other_version(start: Start, other: Peer) -> None:
    mine = start()
    mine("a = share('x')\nh = m.get_handle(a.number)")
    other("a = share('x')\nh = [m.get_handle(a.number) for _ in range(3)][-1]")
    error = mine.fails(
        "m.duplicate(h, desired=None, inherit=False, same_attributes=False, close_source=False, into=pid)",
        pid=other.pid,
    )
    assert error.is_a("InvalidHandleError") and all(part in error.message for part in BOTH), error.message
    error = mine.fails("m.import_by_handle(value)", value=other("h"))
    assert error.is_a("InvalidHandleError") and all(part in error.message for part in BOTH), error.message


def test_no_word_of_other_versions_where_none_runs(start: Start) -> None:
    mine = start()
    mine("a = share('x')")
    assert "version" not in mine.fails("m.import_by_name('theirs')").message
    assert "version" not in mine.fails("m.import_by_handle(400)").message


def test_a_connection_of_the_other_version_is_not_inherited(
    start: Start, environment: dict[str, str], own_runtime: Runtime
) -> None:
    mine = start()
    mine("a = share('x', b'mine.', inherit=True)\nh = m.get_handle(a.number)")
    out = mine(
        "import subprocess, sys\n"
        "with m.inherit_socket() as channel:\n"
        "    environment = {**os.environ, **env, 'EXTMEM_INHERIT_FD': inheritance(channel)}\n"
        "    child = subprocess.Popen([sys.executable, '-c', script], env=environment,\n"
        "        pass_fds=[channel.fileno()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)\n"
        "child.communicate(timeout=60)[0]",
        env=environment,
        script="from extmem.manager import manager\n"
        "try: manager().info(4)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print(manager().status())",
    )
    first, second = out.splitlines()
    assert first.startswith("PeerProtocolError") and all(part in first for part in BOTH), out
    assert second == "None"
    assert mine("len(m.snapshot()[0].holders)") == 1


def test_hello_of_another_version_is_refused_with_both_numbers(own_runtime: Runtime, start: Start) -> None:
    from extmem import wire
    from tests.process.broker.steps import raw

    start()("share('x')")
    with raw(own_runtime, hello=False) as client:
        reply = client.ask(wire.Hello(OTHER_VERSION))
        assert isinstance(reply, wire.Fault) and all(part in reply.detail for part in BOTH), reply


def status(runtime: Runtime, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_extmem(runtime, "broker", "status", *arguments)


def test_status_lists_the_brokers_of_other_versions(own_runtime: Runtime, start: Start, other: Peer) -> None:
    other("a = share('x')")
    pid = brokers(own_runtime)[OTHER_VERSION]
    alone = status(own_runtime)
    assert alone.returncode == 1 and "No broker of this version runs here" in alone.stderr
    mine = start()
    mine("a = share('x')")
    for done in (alone, status(own_runtime)):
        assert f"version {OTHER_VERSION} of the wire format, process {pid}" in done.stderr, done.stderr
    facts = json.loads(status(own_runtime, "--json").stdout)
    assert facts["version"] == PROTOCOL_VERSION and facts["other_versions"] == [
        {"version": OTHER_VERSION, "pid": pid, "socket": str(own_runtime.path / f"broker.{OTHER_VERSION}.sock")}
    ]


def test_a_broker_whose_files_have_no_version_is_of_version_2(tmp_path: Path) -> None:
    (tmp_path / "broker.lock").write_text("4711\n")
    (tmp_path / "broker.7.lock").write_text("nonsense\n")
    (tmp_path / "broker.8.lock").write_text("1\n")
    (tmp_path / "broker.x.lock").write_text("1\n")
    with (tmp_path / "broker.lock").open() as unnamed, (tmp_path / "broker.7.lock").open() as named:
        assert brokers_in(RuntimeDir(tmp_path)) == []
        for file in (unnamed, named):
            fcntl.flock(file, fcntl.LOCK_EX)
        assert [(found.version, found.pid, found.socket.name) for found in brokers_in(RuntimeDir(tmp_path))] == [
            (2, 4711, "broker.sock"),
            (7, 0, "broker.7.sock"),
        ]
    assert brokers_in(RuntimeDir(tmp_path / "missing")) == []
