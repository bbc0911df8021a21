"""The runtime directory of a running broker is removed: it takes the path again, or its clients use another broker."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from extmem.testing.children import Child, Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.broker_files import KEY, LOCK, SOCKET
from tests.process.broker.conftest import Start
from tests.process.broker.steps import BROKER, own_broker

NEVER = {"EXTMEM_BROKER_START": "never"}


def remove_socket(path: Path) -> None:
    (path / SOCKET).unlink()


def remove_lock_and_socket(path: Path) -> None:
    (path / LOCK).unlink()
    (path / SOCKET).unlink()


def remove_all_files(path: Path) -> None:
    for file in list(path.iterdir()):
        file.unlink(missing_ok=True)


def remove_directory(path: Path) -> None:
    shutil.rmtree(path)


def move_away(path: Path) -> None:
    path.rename(path.with_name(path.name + "-moved"))


def make_anew(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir(mode=0o700)


def replace_socket(path: Path) -> None:
    (path / SOCKET).unlink()
    (path / SOCKET).write_text("")


WAYS = (remove_socket, remove_lock_and_socket, remove_all_files, remove_directory, move_away, make_anew, replace_socket)


@pytest.fixture
def holder(own_runtime: Runtime, start: Start) -> Peer:
    peer = start()
    peer("a = share('x', b'hello')\nh = m.get_handle(a.number)")
    return peer


@pytest.mark.parametrize("take_away", WAYS, ids=lambda way: way.__name__)
def test_a_living_broker_takes_its_place_again(
    own_runtime: Runtime, holder: Peer, start: Start, take_away: Callable[[Path], None]
) -> None:
    pid = own_runtime.broker_pid()
    take_away(own_runtime.path)
    wait_until(lambda: own_runtime.serving(), "it to listen again")
    assert own_runtime.path.stat().st_mode & 0o777 == 0o700
    other = start(NEVER)
    assert other("reads('x'), m.status().pid") == (b"hello", pid)
    assert other.fails("share('x', b'other')").is_a("NameTakenError")
    assert holder("m.info(h).name.endswith('x'), m.status().pid") == (True, pid)
    shutil.rmtree(own_runtime.path.with_name(own_runtime.path.name + "-moved"), ignore_errors=True)


def test_it_does_so_again_and_again(own_runtime: Runtime, holder: Peer, start: Start) -> None:
    pid = own_runtime.broker_pid()
    for take_away in (remove_socket, remove_directory, remove_socket, make_anew, remove_all_files):
        take_away(own_runtime.path)
        wait_until(lambda: own_runtime.serving(), "it to listen again")
        assert start(NEVER)("reads('x'), m.status().pid") == (b"hello", pid)


def test_without_inotify_a_timer_looks(own_runtime: Runtime, start: Start) -> None:
    with own_broker(
        own_runtime, "from extmem.broker import owned_directory\nowned_directory._inotify = lambda: -1\n"
    ) as broker:
        peer = start(NEVER)
        peer("a = share('x', b'hello')")
        for take_away in (remove_socket, remove_directory):
            take_away(own_runtime.path)
            wait_until(lambda: own_runtime.serving(), "it to listen again")
            assert start(NEVER)("reads('x'), m.status().pid") == (b"hello", broker.pid)


def test_after_a_kill_all_comes_back_although_the_directory_is_another(
    own_runtime: Runtime, holder: Peer, start: Start
) -> None:
    """Journal and key were lost with the directory, and are written again."""
    remove_directory(own_runtime.path)
    wait_until(lambda: own_runtime.serving(), "it to listen again")
    other = start()
    assert other("reads('x')") == b"hello"
    own_runtime.kill_broker()
    assert other("reads('x')") == b"hello"
    assert holder("m.info(h).name.endswith('x')") is True


@pytest.mark.slow("each case waits for two brokers")
@pytest.mark.parametrize("way", [remove_directory, remove_lock_and_socket], ids=lambda way: way.__name__)
def test_one_whose_place_was_taken_sends_its_clients_there(
    own_runtime: Runtime, start: Start, way: Callable[[Path], None]
) -> None:
    """A second broker was faster: the names of both are in it, and a name that both have is the later one's."""
    with own_broker(own_runtime, "from extmem.broker import server\nserver._SETTLE = 3.0\n") as first:
        holder = start(NEVER)
        holder(
            "import logging\nlogged = []\n"
            "class Kept(logging.Handler):\n"
            "    def emit(self, record): logged.append(record.getMessage())\n"
            "logging.getLogger('extmem.broker').addHandler(Kept())\n"
            "a = share('x', b'hello')\nb = share('both', b'first')\nh = m.get_handle(b.number)"
        )
        way(own_runtime.path)
        newcomer = start()
        newcomer("b = share('both', b'later')")
        second = newcomer("m.status().pid")
        assert second != first.pid
        first.wait()
    wait_until(lambda: holder("m.status().pid") == second, "the clients to have moved")
    for peer in (holder, newcomer):
        assert peer("reads('x'), reads('both')") == (b"hello", b"later")
    assert holder("text(m.import_by_handle(h)), m.info(h).name") == (b"first", "")
    assert holder("[line for line in logged if 'another process has taken' in line] != []")


def test_a_broker_that_is_locked_out_reports_whose_lock_it_is(own_runtime: Runtime, holder: Peer) -> None:
    pid = own_runtime.broker_pid()
    with Child.python(
        "import sys\nfrom extmem.broker import run\nrun._LOCK_PATIENCE = 0.1\nsys.exit(run.run(sys.argv[1]))",
        str(own_runtime.path),
        env=own_runtime.environment,
    ) as second:
        second.wait(expect=1)
        assert f"process {pid} holds" in second.output and LOCK in second.output


def test_a_broker_that_cannot_take_its_place_serves_those_it_has(own_runtime: Runtime, start: Start) -> None:
    """It fails until the path is free."""
    parent = own_runtime.path / "parent"
    place = parent / "place"
    parent.mkdir(mode=0o700)
    env = {"EXTMEM_RUNTIME_DIR": str(place)}
    holder, other = start(env), start(env)
    holder("a = share('x', b'hello')")
    pid = other("drop(m.import_by_name('x'))\nm.status().pid")
    shutil.rmtree(parent)
    parent.write_text("no directory")
    assert [other("reads('x')") for _ in range(20)] == [b"hello"] * 20
    parent.unlink()
    parent.mkdir(mode=0o700)
    wait_until(lambda: (place / SOCKET).exists(), "it to take its place")
    assert start({**env, **NEVER})("reads('x'), m.status().pid") == (b"hello", pid)
    assert os.path.exists(place / KEY)
    other("m.disconnect()")
    holder("m.stop(force=True)")
    holder.kill()


# -- other processes at the lock and at the socket


@contextmanager
def looked_at(lock: Path) -> Iterator[None]:
    """The lock as a client takes it to find out whether a broker runs: shared, for a moment."""
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def noted(module: str, function: str, file: Path) -> str:
    """Return a prelude of `own_broker`: calls of that function create the file."""
    return (
        f"from extmem.broker import {module} as module\nreal = module.{function}\n"
        f"def call(*what):\n    open({str(file)!r}, 'w').close()\n    return real(*what)\n"
        f"module.{function} = call\n"
    )


def test_a_look_at_the_lock_keeps_no_broker_from_starting(own_runtime: Runtime, start: Start) -> None:
    tried = own_runtime.path / "tried"
    source = BROKER + noted("run", "lock_of", tried) + "sys.exit(run.run(sys.argv[1]))"
    with looked_at(own_runtime.path / LOCK):
        broker = Child.python(source, str(own_runtime.path), env=own_runtime.environment)
        wait_until(tried.exists, "it to try")
        tried.unlink()
        wait_until(tried.exists, "it to try again")
        assert not own_runtime.serving()
    with broker:
        wait_until(lambda: own_runtime.serving(), "it to listen")
        assert start(NEVER)("share('x', b'hello') and reads('x'), m.status().pid") == (b"hello", broker.pid)


def test_a_look_at_the_lock_costs_a_living_broker_nothing(own_runtime: Runtime, start: Start) -> None:
    tried = own_runtime.path / "tried"
    with own_broker(own_runtime, noted("server", "hand_over", tried)) as broker:
        holder = start(NEVER)
        holder("a = share('x', b'hello')")
        remove_lock_and_socket(own_runtime.path)
        with looked_at(own_runtime.path / LOCK):
            wait_until(lambda: tried.exists() or own_runtime.serving(), "it to find the lock held")
            assert tried.exists()
        wait_until(lambda: own_runtime.serving(), "it to listen again")
        assert start(NEVER)("reads('x'), m.status().pid") == (b"hello", broker.pid)


@pytest.mark.parametrize("whose", ["its own", "another's"])
def test_a_broker_that_leaves_takes_no_socket_along_but_its_own(own_runtime: Runtime, whose: str) -> None:
    path = own_runtime.path / SOCKET
    with own_broker(own_runtime, "from extmem.broker import server\nserver._SETTLE = 60.0\n") as broker:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            if whose == "another's":
                path.unlink()
                other.bind(str(path))
                other.listen()
            os.kill(broker.pid, signal.SIGTERM)
            broker.wait()
            assert path.exists() is (whose == "another's")
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_is_told_to_leave_while_it_starts_leaves_nothing(own_runtime: Runtime, number: signal.Signals) -> None:
    """In the middle of its start: it listens, and has no signal handlers yet."""
    source = BROKER + signalled_once_it_listens(number) + "sys.exit(run.run(sys.argv[1]))"
    with Child.python(source, str(own_runtime.path), env=own_runtime.environment) as broker:
        broker.wait()
    assert not (own_runtime.path / SOCKET).exists()


def test_one_whose_terminal_goes_while_it_starts_serves(own_runtime: Runtime) -> None:
    with own_broker(own_runtime, signalled_once_it_listens(signal.SIGHUP)):
        wait_until(own_runtime.serving, "it to serve")


def signalled_once_it_listens(number: signal.Signals) -> str:
    """Source: the process of the broker gets this signal between `listen` and what follows."""
    return (
        "import os\nfrom extmem.broker import run\nlisten = run.listen\n"
        f"def listened(*args):\n    try:\n        return listen(*args)\n    finally:\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "run.listen = listened\n"
    )
