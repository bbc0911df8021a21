"""Finding a broker where something is in the way: a removed socket, another user's directory, or a program that is
not Python.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from extmem.testing.children import Child, RemoteError, python_environment
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.broker_files import LOCK, LOG, SOCKET, START_LOCK
from tests.process.broker.conftest import Start

VICTIM = 20_000 + os.getpid() % 20_000
ATTACKER = VICTIM + 20_000
"""User ids that no other run of these tests uses at the same time."""


# The socket was removed, and the broker runs.


def without_socket(runtime: Runtime, start: Start) -> int:
    """A broker that runs, with a client, and whose socket was removed; its pid."""
    start()("share('x')")
    (runtime.path / SOCKET).unlink()
    pid = runtime.broker_pid()
    assert pid is not None
    return pid


def frozen(runtime: Runtime, start: Start) -> int:
    """The same, stopped before the socket was removed: it cannot make a new one."""
    start()("share('x')")
    pid = runtime.broker_pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    (runtime.path / SOCKET).unlink()
    return pid


def test_a_removed_socket_is_reported_with_the_process_to_end(own_runtime: Runtime, start: Start) -> None:
    pid = frozen(own_runtime, start)
    peer = start()
    peer("from extmem.manager.linux import launch\nlaunch._HELD = 0.2")
    for attempt in ("share('y')", "m.import_by_name('x')", "m.status()", "m.stop()"):
        error = peer.fails(attempt)
        assert error.is_a("PeerGoneError"), attempt
        assert f"process {pid} holds {own_runtime.path / LOCK}" in error.message
        assert "socket was removed" in error.message
    os.kill(pid, signal.SIGCONT)


def test_the_command_line_reports_it_too(own_runtime: Runtime, start: Start) -> None:
    pid = frozen(own_runtime, start)
    commands = (("ps",), ("broker", "status"), ("broker", "stop", "--force"))
    with ExitStack() as stack:
        asked = [
            stack.enter_context(Child([sys.executable, "-m", "extmem", *command], env=own_runtime.environment))
            for command in commands
        ]
        for child in asked:
            child.wait(expect=1)
            assert f"process {pid} holds" in child.output and "No broker r" not in child.output
    os.kill(pid, signal.SIGCONT)


def test_a_socket_that_somebody_replaced_is_reported_too(own_runtime: Runtime, start: Start) -> None:
    pid = frozen(own_runtime, start)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mute:
        mute.bind(str(own_runtime.path / SOCKET))  # nothing listens there
        peer = start()
        peer("from extmem.manager.linux import launch\nlaunch._HELD = 0.2")
        error = peer.fails("m.import_by_name('x')")
    assert error.is_a("PeerGoneError") and f"process {pid}" in error.message
    os.kill(pid, signal.SIGCONT)


def test_one_that_ends_is_followed_by_another(own_runtime: Runtime, start: Start) -> None:
    """The remedy in the message works: the process is ended, and what lives is shared again."""
    holder = start()
    holder("share('x', b'hello')")
    pid = own_runtime.broker_pid()
    assert pid is not None
    (own_runtime.path / SOCKET).unlink()
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: start()("reads('x')") == b"hello", "the next broker")
    assert own_runtime.broker_pid() != pid


# Other users.


@pytest.fixture
def fall_back() -> Iterator[Path]:
    """The directory of the broker of a user without a session; removed afterwards."""
    if os.geteuid():
        pytest.skip("needs root, to be another user")
    path = Path(f"/tmp/extmem-{VICTIM}")
    shutil.rmtree(path, ignore_errors=True)
    try:
        yield path
    finally:
        for pid in _running_in(path):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(path, ignore_errors=True)


def _running_in(path: Path) -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and str(path).encode() in (process / "cmdline").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


BECOME = (
    f"os.setgroups([]); os.setresgid({VICTIM}, {VICTIM}, {VICTIM}); os.setresuid({VICTIM}, {VICTIM}, {VICTIM})\n"
    "m.disconnect(); m = manager()"
)
ALONE = {"EXTMEM_RUNTIME_DIR": "", "XDG_RUNTIME_DIR": "", "EXTMEM_BROKER_IDLE": "0.1"}


def test_the_fall_back_is_the_users_own(fall_back: Path, start: Start) -> None:
    # (Whether a broker starts there depends on the interpreter, which may be in a directory that only root may read.)
    found = start(ALONE)(f"{BECOME}\nopened = m.client.directory.prepare()\nos.fstat(opened.fd).st_ino")
    assert found == fall_back.stat().st_ino
    assert fall_back.stat().st_uid == VICTIM and fall_back.stat().st_mode & 0o777 == 0o700


def test_a_fall_back_of_another_user_is_refused(fall_back: Path, start: Start) -> None:
    fall_back.mkdir(mode=0o700)
    os.chown(fall_back, ATTACKER, ATTACKER)
    error = start(ALONE).fails(f"{BECOME}\nshare('x')")
    assert error.is_a("UnsupportedError")
    assert f"belongs to user {ATTACKER}, not to user {VICTIM}" in error.message and str(fall_back) in error.message
    assert not list(fall_back.iterdir())


def test_a_session_directory_of_another_user_is_not_used(fall_back: Path, start: Start, tmp_path: Path) -> None:
    """The environment is as `sudo -E` leaves it: neither of the two users is locked out."""
    session = tmp_path / "session"
    session.mkdir(mode=0o700)
    peer = start({**ALONE, "XDG_RUNTIME_DIR": str(session)})
    assert peer(f"{BECOME}\nstr(m.client.directory.path)") == str(fall_back)
    assert peer("m.client.directory.prepare().close()") is None
    assert fall_back.exists() and not list(session.iterdir())


def test_a_directory_that_is_not_ours_to_enter_is_refused(start: Start, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to be another user")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    error = start({"EXTMEM_RUNTIME_DIR": str(closed / "extmem")}).fails(f"{BECOME}\nshare('x')")
    assert error.is_a("UnsupportedError")
    assert str(closed / "extmem") in error.message and "Permission denied" in error.message


@pytest.mark.parametrize("there", [True, False], ids=["there", "missing"])
@pytest.mark.parametrize("verb", ["share('x')", "m.open_handle('x', READ)", "m.import_by_name('x')"])
def test_a_path_that_no_socket_can_have_is_refused(start: Start, tmp_path: Path, there: bool, verb: str) -> None:
    """Whatever call is first names the limit, whether the directory exists or not."""
    long = tmp_path / ("x" * 110)
    if there:
        long.mkdir(mode=0o700)
    error = start({"EXTMEM_RUNTIME_DIR": str(long)}).fails(verb)
    assert error.is_a("UnsupportedError")
    assert f"{long} is too long: a socket's path has at most 107 bytes" in error.message
    assert long.exists() is there


# Programs that are not Python.

PROGRAM = """
import os, sys
print("the program starts", flush=True)
sys.executable = os.environ["PROGRAM"]
if os.environ.get("FROZEN"): sys.frozen = True
import extmem
try:
    extmem.open_device(kind="host").allocate(4, name="x").close()
    print("shared")
except extmem.ExtmemError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def program(tmp_path: Path) -> dict[str, str]:
    """A program like a frozen one: its executable runs it, whatever the arguments."""
    (tmp_path / "program.py").write_text(PROGRAM)
    app = tmp_path / "app"
    app.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/program.py "$@"\n')
    app.chmod(0o755)
    return {"PROGRAM": str(app)}


def run(own_runtime: Runtime, environment: dict[str, str]) -> str:
    return subprocess.run(
        [environment["PROGRAM"]],
        env=python_environment({**own_runtime.environment, **environment}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


@pytest.mark.parametrize("frozen", ["yes", ""])
def test_a_program_is_not_started_in_place_of_a_broker(
    own_runtime: Runtime, program: dict[str, str], frozen: str
) -> None:
    output = run(own_runtime, {**program, "FROZEN": frozen})
    assert output.count("the program starts") == 1
    assert "UnsupportedError" in output and "EXTMEM_BROKER_PYTHON" in output and program["PROGRAM"] in output
    assert not (own_runtime.path / LOG).exists()


@pytest.mark.parametrize("frozen", ["yes", ""])
def test_the_interpreter_for_the_broker_can_be_named(
    own_runtime: Runtime, program: dict[str, str], frozen: str
) -> None:
    environment = {**program, "FROZEN": frozen, "EXTMEM_BROKER_PYTHON": sys.executable}
    assert run(own_runtime, environment).endswith("shared\n")


def test_the_program_named_as_the_interpreter_runs_once_and_starts_no_other(
    own_runtime: Runtime, program: dict[str, str]
) -> None:
    output = run(own_runtime, {**program, "EXTMEM_BROKER_PYTHON": program["PROGRAM"]})
    assert output.count("the program starts") == 1 and "UnsupportedError" in output and "did not start one" in output
    log = (own_runtime.path / LOG).read_text()
    # Starting is tried several times, as after a killed broker; each try ends without a broker.
    assert 1 <= log.count("the program starts") <= 4
    assert log.count("may not start one (EXTMEM_BROKER_START=never)") == log.count("the program starts")


@pytest.mark.parametrize("python", ["/nowhere/python", "/etc/passwd", "/bin/true"])
def test_an_interpreter_that_does_not_run_is_named(own_runtime: Runtime, start: Start, python: str) -> None:
    error = start({"EXTMEM_BROKER_PYTHON": python}).fails("share('x')")
    assert error.is_a("UnsupportedError") and python in error.message and str(own_runtime.path) in error.message


def test_an_interpreter_that_hangs_is_ended(own_runtime: Runtime, start: Start, tmp_path: Path) -> None:
    hanging = tmp_path / "python-that-hangs"
    hanging.write_text("#!/bin/sh\nexec sleep 1000\n")
    hanging.chmod(0o755)
    peer = start({"EXTMEM_BROKER_PYTHON": str(hanging)})
    peer("from extmem.manager.linux import launch\nlaunch.START_TIMEOUT = 0.3\nm.client._timeout = 0.3")
    error = peer.fails("share('x')")
    assert error.is_a("PeerGoneError") and str(hanging) in error.message
    assert not [command for command in own_runtime.processes().values() if "sleep" in command]


def test_a_process_without_an_executable_reports_it(own_runtime: Runtime, start: Start) -> None:
    peer = start()
    with pytest.raises(RemoteError, match=r"sys\.executable is empty"):
        peer("import sys\nsys.executable = ''\nshare('x')")


@pytest.mark.parametrize("name", [LOG, START_LOCK, LOCK])
def test_a_file_that_cannot_be_opened_is_named(own_runtime: Runtime, start: Start, name: str) -> None:
    (own_runtime.path / name).mkdir()
    error = start().fails("share('x')")
    assert error.is_a("UnsupportedError")
    assert str(own_runtime.path / name) in error.message and "Is a directory" in error.message
    (own_runtime.path / name).rmdir()
    assert start()("share('x', b'hello')\nreads('x')") == b"hello"
