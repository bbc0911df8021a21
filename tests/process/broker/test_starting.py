"""A broker starts when one is needed, only one, and ends when it has no clients."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from extmem.testing.children import Child, python_environment
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.broker_files import JOURNAL, KEY, LOCK, LOG, SOCKET, START_LOCK
from tests.process.broker.conftest import Start
from tests.process.broker.steps import BECOME, OTHER, RawClient, broker_fds, raw
from tests.sigstop import stop


def gone(runtime: Runtime) -> bool:
    return runtime.broker_pid() is None


def test_importing_the_package_starts_nothing(own_runtime: Runtime, start: Start) -> None:
    peer = start()
    assert peer("import extmem.manager, extmem.api\nthreading.active_count(), fds()")[0] == 1
    assert gone(own_runtime) and not list(own_runtime.path.iterdir())


def test_the_first_call_starts_one(own_runtime: Runtime, start: Start) -> None:
    peer = start()
    peer("share('x', b'hello')")
    assert peer("m.status().pid") == own_runtime.broker_pid()


def test_asking_how_it_is_starts_none(own_runtime: Runtime, start: Start) -> None:
    peer = start()
    assert peer("m.status(), m.stop()") == (None, True)
    assert gone(own_runtime)


def test_of_eight_that_come_at_once_one_starts_it(own_runtime: Runtime, start: Start) -> None:
    peers = [start() for _ in range(8)]
    for number, peer in enumerate(peers):
        peer.start(f"share('x{number}', b'hello')\nm.status().pid")
    assert {peer.finish() for peer in peers} == {own_runtime.broker_pid()}
    assert sum("extmem.broker" in command for command in own_runtime.processes().values()) == 1
    assert all(peers[0](f"reads('x{number}')") == b"hello" for number in range(8))


def test_it_belongs_to_nobody_and_has_nothing_of_its_starter(own_runtime: Runtime, start: Start) -> None:
    peer = start()
    pid = peer(
        "held = os.open('/dev/zero', os.O_RDONLY); os.set_inheritable(held, True)\n"
        "ready = os.dup2(held, 200, inheritable=True)\nshare('x')\nm.status().pid"
    )
    targets = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert "/dev/zero" not in targets
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/fd/2") == str(own_runtime.path / LOG)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) not in (os.getsid(peer.pid), peer.pid)
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(rf"PPid:\t(?!{peer.pid}\n)", status)


def test_the_starters_variables_and_directory_do_not_decide_what_it_imports(
    own_runtime: Runtime, start: Start, tmp_path: Path
) -> None:
    planted = tmp_path / "planted"
    planted.mkdir()
    for module in ("sitecustomize", "msgspec", "extmem"):
        (planted / f"{module}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({module!r})\n")
    peer = start()
    peer(
        "os.environ |= {'PYTHONPATH': planted, 'PYTHONSTARTUP': planted + '/extmem.py'}\nos.chdir(planted)",
        planted=str(planted),
    )
    assert peer("share('x', b'hello')\nreads('x')") == b"hello"
    assert not (tmp_path / "imported").exists()
    peer("import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import msgspec'])")
    assert (tmp_path / "imported").read_text() == "sitecustomizemsgspec", "the twin: other programs import them"


def test_it_maps_no_payload(own_runtime: Runtime, start: Start) -> None:
    peer, other = start(), start()
    peer("a = share('x', b'hello')\nh = m.get_handle(a.number)\nreads('x')")
    assert other("i = m.import_by_name('x', READ_WRITE)\ntext(i)") == b"hello"
    pid = own_runtime.broker_pid()
    assert "memfd:" not in Path(f"/proc/{pid}/maps").read_text()
    fds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert any("memfd:" in target for target in fds), "it has the payload's file"
    other("view = mmap.mmap(i.payload.fd, 4096)")
    assert "memfd:" in Path(f"/proc/{other.pid}/maps").read_text(), "the twin: a mapping is seen"


def test_it_is_light_and_loads_nothing_it_does_not_need(own_runtime: Runtime, start: Start) -> None:
    peer = start()
    # An interpreter that does nothing has 9 MiB with Python 3.11, and 10 MiB with 3.15.
    look = "print(open('/proc/self/statm').read().split()[1])"
    pages = int(subprocess.run([sys.executable, "-c", look], capture_output=True, check=True, timeout=60).stdout)
    assert peer("share('x')\nm.status().resident") < 3 * pages * os.sysconf("SC_PAGE_SIZE")
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, extmem.broker.run\nprint(*sys.modules)"],
        env=python_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    mine = {name.split(".")[1] for name in loaded if name.startswith("extmem.")}
    assert mine == {"arguments", "broker", "errors", "forks", "objects", "owning", "sharing", "wire"}
    assert not {"numpy", "click", "rich", "cffi", "_cffi_backend", "asyncio", "multiprocessing"} & set(loaded)


def test_it_goes_when_nobody_is_there_and_comes_again(own_runtime: Runtime, start: Start) -> None:
    idle = {"EXTMEM_BROKER_IDLE": "0.1"}
    peer = start(idle)
    peer("share('x')")
    peer.leave()
    wait_until(lambda: gone(own_runtime), "the broker to leave")
    assert {path.name for path in own_runtime.path.iterdir()} == {
        KEY,
        LOCK,
        LOG,
        START_LOCK,
    }
    assert (own_runtime.path / LOG).read_text() == ""
    assert start(idle)("share('x', b'again')\nreads('x')") == b"again"


def test_it_stays_while_a_client_is_there_that_holds_nothing(own_runtime: Runtime, start: Start) -> None:
    peer = start({"EXTMEM_BROKER_IDLE": "0.05"})
    pid = peer("drop(m.import_by_name('x') if share('x') else None)\nm.status().pid")
    assert peer("for number in list(m.client.state.references): m.release(number)\nm.snapshot()") == []
    # Ten times as long as it would stay without clients, while something queries it every moment.
    ended = wait_until(lambda: peer("m.status().uptime") > 0.5, "half a second")
    assert ended and own_runtime.broker_pid() == pid


def test_clients_that_meet_a_leaving_broker_try_again(own_runtime: Runtime, start: Start) -> None:
    """Without a delay the broker ends as soon as it has no clients: each new client may connect while it ends."""
    peer = start({"EXTMEM_BROKER_IDLE": "0"})
    assert (
        peer(
            "from extmem.manager.linux.manager import LinuxManager\n"
            "for _ in range(25):\n"
            "    fresh = LinuxManager()\n"
            "    alive = fresh.kmt_alive(5)\n"
            "    fresh.disconnect()\n"
            "alive"
        )
        is False
    )


@pytest.mark.parametrize("variable", ["EXTMEM_BROKER_IDLE", "EXTMEM_TICKET_SECONDS"])
@pytest.mark.parametrize("seconds", ["3e6", "1e300", "inf"])  # poll() accepts at most 2**31 milliseconds
def test_a_time_may_be_longer_than_one_wait_of_the_system(
    own_runtime: Runtime, start: Start, variable: str, seconds: str
) -> None:
    settings = {variable: seconds}
    peer = start(settings)
    ticket, pid = peer("a = share('x', b'hello')\nm.offer(reference=a.number), m.status().pid")
    peer.kill()
    other = start(settings)
    assert other("i = m.claim(ticket)\ntext(i), m.status().pid", ticket=ticket) == (b"hello", pid)
    assert (own_runtime.path / LOG).read_text() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(own_runtime: Runtime, start: Start, number: signal.Signals) -> None:
    start()("share('x')\nm.disconnect()")
    pid = own_runtime.broker_pid()
    assert pid is not None
    os.kill(pid, number)
    wait_until(lambda: gone(own_runtime), "the broker to end")
    assert not (own_runtime.path / SOCKET).exists() and not (own_runtime.path / JOURNAL).exists()
    assert (own_runtime.path / LOG).read_text() == ""


def test_in_the_foreground_it_says_what_it_cannot_do(own_runtime: Runtime, start: Start) -> None:
    start()("share('x')")
    with Child([sys.executable, "-m", "extmem.broker"], env=own_runtime.environment) as second:
        second.wait(expect=1)
        assert "another broker is running" in second.output and str(own_runtime.path) in second.output
        assert f"process {own_runtime.broker_pid()} holds" in second.output


def test_in_the_foreground_it_serves(own_runtime: Runtime, start: Start) -> None:
    with Child([sys.executable, "-m", "extmem.broker"], env=own_runtime.environment) as child:
        wait_until(lambda: (own_runtime.path / SOCKET).exists(), "its socket")
        peer = start({"EXTMEM_BROKER_START": "never"})
        assert peer("share('x', b'hello')\nreads('x'), m.status().pid") == (b"hello", child.pid)
        peer.leave()
        os.kill(child.pid, signal.SIGTERM)
        child.wait()


def test_without_leave_to_start_one_the_error_states_what_to_do(own_runtime: Runtime, start: Start) -> None:
    error = start({"EXTMEM_BROKER_START": "never"}).fails("share('x')")
    assert error.is_a("UnsupportedError")
    assert str(own_runtime.path) in error.message and "extmem broker run" in error.message


def test_in_a_directory_that_cannot_be_written_the_error_states_what_to_do(own_runtime: Runtime, start: Start) -> None:
    own_runtime.path.chmod(0o500)
    peer = start()
    if os.geteuid() == 0:  # root may write everywhere: it must become another user to be refused
        os.chown(own_runtime.path, OTHER, OTHER)
        peer(BECOME + "become()")
    error = peer.fails("share('x')")
    assert error.is_a("UnsupportedError")
    assert str(own_runtime.path) in error.message and "extmem broker run" in error.message


def test_why_it_could_not_start_is_reported_to_the_client_that_needed_it(own_runtime: Runtime, start: Start) -> None:
    (own_runtime.path / LOCK).mkdir()
    error = start().fails("share('x')")
    assert error.is_a("UnsupportedError") and "Is a directory" in error.message and LOG in error.message


def test_a_directory_that_others_can_enter_is_refused(own_runtime: Runtime, start: Start) -> None:
    own_runtime.path.chmod(0o755)
    error = start().fails("share('x')")
    assert error.is_a("UnsupportedError") and f"chmod 700 {own_runtime.path}" in error.message
    own_runtime.path.chmod(0o700)


def test_a_killed_starter_is_no_obstacle(own_runtime: Runtime, start: Start) -> None:
    """The holder of `start.lock` is waited for; the kernel frees the lock when that process dies."""
    holder, peer = start(), start()
    holder(f"held = open({str(own_runtime.path / START_LOCK)!r}, 'w')\nfcntl.flock(held, fcntl.LOCK_EX)")
    peer.start("share('x', b'hello')\nreads('x')")
    with open(own_runtime.path / START_LOCK) as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert gone(own_runtime)
    holder.kill()
    assert peer.finish() == b"hello"


def test_a_socket_that_a_killed_broker_left_is_replaced(own_runtime: Runtime, start: Start) -> None:
    start()("share('x')\nm.disconnect()")
    own_runtime.kill_broker()
    assert (own_runtime.path / SOCKET).is_socket()
    assert start()("share('x', b'hello')\nreads('x')") == b"hello"


def test_stopping_asks_unless_it_is_told_not_to(own_runtime: Runtime, start: Start) -> None:
    first, second = start(), start()
    assert first("share('x', b'hello')\nreads('x')") == second("reads('x')") == b"hello"
    pid = own_runtime.broker_pid()
    assert second("m.stop()") is False and own_runtime.broker_pid() == pid
    assert second("m.stop(force=True)") is True
    wait_until(lambda: own_runtime.broker_pid() not in (None, pid), "the holder to start another one")
    assert second("reads('x')") == b"hello"


def test_a_question_needs_no_hello(own_runtime: Runtime, start: Start) -> None:
    from extmem import wire

    start()("share('x')")
    with raw(own_runtime, hello=False) as client:
        state = client.ask(wire.GetStatus())
    assert isinstance(state, wire.BrokerState) and (state.clients, state.payloads) == (1, 1)


def test_one_that_does_not_answer_is_given_up(own_runtime: Runtime, start: Start) -> None:
    peer = start()
    peer(
        "from extmem.manager.linux.manager import LinuxManager\n"
        "m = LinuxManager(timeout=0.3)\nexported = share('x', b'hello')"
    )
    pid = own_runtime.broker_pid()
    assert pid is not None
    stop(pid)
    error = peer.fails("m.import_by_name('x')")
    assert error.is_a("PeerGoneError") and "0.3 s" in error.message and LOG in error.message
    os.kill(pid, signal.SIGCONT)
    assert wait_until(lambda: peer("reads('x')") == b"hello", "it to work again")
    assert own_runtime.broker_pid() == pid


def test_one_client_more_costs_two_descriptors(own_runtime: Runtime, start: Start) -> None:
    """Return its connection, and what signals that its process has ended."""
    start()("share('x')")
    pid = own_runtime.broker_pid()
    assert pid is not None
    before = broker_fds(pid)
    clients = [RawClient(own_runtime.path) for _ in range(10)]
    for client in clients:
        client.hello()
    assert broker_fds(pid) == before + 20
    for client in clients:
        client.close()
    wait_until(lambda: broker_fds(pid) == before, "ten to be let go")
