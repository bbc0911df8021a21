"""Programs that were started with stdin, stdout or stderr closed: no fd of extmem gets those numbers.

What prints or logs then would write to the file with that number, and overwrite a payload.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from extmem.owning import OwnedFd
from extmem.testing.children import Child, python_environment
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.broker_files import SOCKET

CLOSED = [numbers for count in (1, 2, 3) for numbers in itertools.combinations(range(3), count)]  # in all seven ways

# Calls everything by which extmem opens, receives or copies an fd, and checks the numbers after each call.
PROGRAM = """
import fcntl, json, os, pickle, socket, sys
import extmem
from extmem import process, vk

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
answer, closed = int(sys.argv[1]), json.loads(sys.argv[2])
taken = {}

def look(what):
    for number in closed:
        if os.path.lexists(f"/proc/self/fd/{number}"):
            found = os.readlink(f"/proc/self/fd/{number}")
            # libffi, which ctypes uses, keeps its own library open, for reading: what is written there is an error.
            if not os.path.basename(found).startswith("libffi."):
                taken[what] = found

look("import")
device = extmem.open_device(kind="host"); look("device")
memory = device.allocate(64, name="low"); look("allocate")       # starts the broker: socket, pipes, watcher
memory.map()[:] = b"A" * 64; look("map")
handles = [memory.export_handle(FD)]; look("export an fd")
handles.append(handles[0].duplicate()); look("duplicate it")
other = device.open(handles[1]); look("import it")
nt = memory.export_handle(); look("export an NT handle")
opened = extmem.open(nt); look("open it")
again = pickle.loads(pickle.dumps(handles[0])); look("pickle an fd")
passed = pickle.loads(pickle.dumps(memory)); look("pickle memory")
rows = extmem.manager.manager().snapshot(); look("snapshot")
ends = []
for low in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET):
    ends.append(socket.socket(fileno=fcntl.fcntl(low.fileno(), fcntl.F_DUPFD_CLOEXEC, 50)))
    low.close()
process.send_handle(ends[0], handles[0])
received = process.receive_handle(ends[1]); look("receive an fd")
for number in closed:
    try:
        os.write(number, b"WARNING from a C library\\n")
        taken["written to"] = number
    except OSError:
        pass
found = bytes(memory.map()).decode("ascii", "replace")
os.write(answer, json.dumps({"taken": taken, "found": found}).encode())
"""


@pytest.mark.parametrize("closed", CLOSED, ids=lambda numbers: "".join(map(str, numbers)))
def test_nothing_of_ours_takes_their_place(own_runtime: Runtime, tmp_path: Path, closed: tuple[int, ...]) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    receiving, sending = os.pipe()
    high = fcntl.fcntl(sending, fcntl.F_DUPFD, 100)
    os.close(sending)
    redirections = " ".join(f"{number}>&-" for number in closed)
    try:
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, str(script), str(high), json.dumps(closed)],
            env=python_environment(own_runtime.environment),
            pass_fds=(high,),
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(high)
    with open(receiving, "rb") as answers:
        answer = answers.read()
    assert done.returncode == 0, done.stderr
    assert json.loads(answer) == {"taken": {}, "found": "A" * 64}


def test_a_broker_in_the_foreground_keeps_them_occupied(own_runtime: Runtime) -> None:
    broker = subprocess.Popen(
        ["sh", "-c", 'exec "$@" 0>&- 1>&- 2>&-', "sh", sys.executable, "-m", "extmem.broker"],
        env=python_environment(own_runtime.environment),
    )
    try:
        wait_until(lambda: (own_runtime.path / SOCKET).exists(), "its socket")
        found = [os.readlink(f"/proc/{broker.pid}/fd/{number}") for number in range(3)]
        # libffi, which ctypes uses, keeps its own library open for reading: writing to it is an error.
        assert {name for name in found if not Path(name).name.startswith("libffi.")} == {"/dev/null"}
    finally:
        broker.kill()
        broker.wait(timeout=30)


# The helper alone.


def test_a_number_of_3_or_more_stays(tmp_path: Path) -> None:
    owned = OwnedFd.open(tmp_path, os.O_RDONLY)
    assert owned.above_standard_streams() is owned
    owned.close()


LEFT_AND_CLOSED = """
import os, socket
from extmem.owning import OwnedFd, pipes_and_sockets

os.dup2(os.open("/dev/zero", os.O_RDONLY), 0, inheritable=False)
made = OwnedFd(0).above_standard_streams().take()
assert made >= 3 and os.readlink(f"/proc/self/fd/{made}") == "/dev/zero"
assert not os.get_inheritable(made) and not os.path.lexists("/proc/self/fd/0")
low = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
assert low.fileno() == 0
raised = pipes_and_sockets.socket_above_standard_streams(low)
assert raised.fileno() >= 3 and raised.type == socket.SOCK_SEQPACKET and low.fileno() == -1
ends = pipes_and_sockets.pipe(os.O_CLOEXEC | os.O_NONBLOCK)
ends = [end.take() for end in ends]
assert min(ends) >= 3 and not any(map(os.get_blocking, ends)) and not any(map(os.get_inheritable, ends))
assert not os.path.lexists("/proc/self/fd/0")
"""


def test_a_low_number_is_left_and_closed() -> None:
    with Child.python(LEFT_AND_CLOSED) as child:
        child.wait()
