"""Children: what fork leaves behind, what children inherit, and tickets for a child that may die."""

from __future__ import annotations

import socket

import pytest

from extmem import wire
from extmem.manager import INHERIT_VARIABLE
from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from extmem.wire import transport
from tests.process.broker.conftest import Start
from tests.process.broker.steps import PEER, broker_fds, wait_for_broker_fds

FORK = """
import pickle, traceback
def forked(source):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            answer = repr(eval(source, globals()))
        except BaseException as error:
            answer = type(error).__name__
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        answer = file.read()
    os.waitpid(child, 0)
    return answer
"""


@pytest.fixture
def parent(start: Start) -> Peer:
    peer = start()
    peer(
        FORK
        + "a = share('x', b'hello', inherit=True)\nh = m.get_handle(a.number)\ni = m.import_by_name('x', READ_WRITE)"
    )
    return peer


# -- fork


def test_a_forked_child_is_a_client_of_its_own(parent: Peer) -> None:
    assert parent("forked('reads(\"x\")')") == "b'hello'"
    assert parent("forked('m.import_by_name(\"x\").number > a.number')") == "True"
    assert parent("reads('x'), len(m.snapshot()[0].holders)") == (b"hello", 1)


def test_a_forked_child_has_nothing_of_its_parents(parent: Peer) -> None:
    for call in (
        "m.get_handle(a.number)",
        "m.offer(reference=i.number)",
        "m.info(h)",
        "m.import_by_handle(h)",
        "m.duplicate(h, desired=None, inherit=False, same_attributes=False, close_source=True, into=None)",
    ):
        assert parent("forked(call)", call=call) == "HandleStateError"


def test_closing_in_a_forked_child_is_local(parent: Peer) -> None:
    assert (
        parent("forked('(m.release(a.number), m.release(i.number), m.close(h), i.payload.close())')")
        == "(None, None, None, None)"
    )
    assert parent("m.info(h).handle_count, text(i), reads('x')") == (1, b"hello", b"hello")


def test_a_forked_child_keeps_what_is_mapped_and_no_descriptor(parent: Peer) -> None:
    """Its copies are closed: no call may use them, and files of the child may get their numbers."""
    parent("import ctypes\nfrom extmem.devices.host.system import map_file\nview = map_file(i.payload.fd, 4096, False)")
    assert parent("forked('ctypes.string_at(view.address, 5)')") == "b'hello'"
    assert parent("forked('text(i)')") == "OSError"
    assert parent("text(i)") == b"hello", "the parent has its own"


def test_a_forked_child_is_watched_over_like_any_other(own_runtime: Runtime, parent: Peer) -> None:
    """It has a watcher of its own, which announces its objects again."""
    parent(
        "ask, answer = os.pipe(), os.pipe()\nchild = os.fork()\n"
        "if not child:\n"
        "    kept = share('child', b'child')\n"
        "    os.write(answer[1], b'r')\n"
        "    os.read(ask[0], 1)\n"
        "    os._exit(0)\n"
        "os.read(answer[0], 1)"
    )
    own_runtime.kill_broker()
    assert parent("reads('child'), reads('x')") == (b"child", b"hello")
    parent("os.write(ask[1], b'e'); os.waitpid(child, 0)")
    wait_until(lambda: parent("len(m.snapshot())") == 1, "the child's to end")


def test_fork_in_the_middle_of_calls_of_another_thread(parent: Peer) -> None:
    parent(
        "stop = threading.Event()\nerrors = []\n"
        "def work():\n"
        "    try:\n"
        "        while not stop.is_set(): reads('x')\n"
        "    except BaseException as error: errors.append(error)\n"
        "t = threading.Thread(target=work); t.start()"
    )
    assert [parent("forked('reads(\"x\")')") for _ in range(20)] == ["b'hello'"] * 20
    assert parent("stop.set(); t.join(20); errors") == []


# -- inheritance


def born(parent: Peer, source: str, *, handles: str = "None") -> str:
    """Return the output of a child of the peer that was started with inheritance."""
    script = PEER + source
    return str(
        parent(
            "import subprocess, sys\n"
            f"with m.inherit_socket({handles}) as channel:\n"
            "    environment = dict(os.environ, EXTMEM_INHERIT_FD=inheritance(channel))\n"
            "    child = subprocess.Popen([sys.executable, '-c', 'import os\\n' + script], env=environment,\n"
            "        pass_fds=[channel.fileno()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)\n"
            "out = child.communicate(timeout=60)[0]\n"
            "out.strip()",
            script=script,
        )
    )


def test_B30_a_child_finds_the_same_numbers(parent: Peer) -> None:
    value = parent("h")
    output = born(parent, f"print(m.info({value}).inherit, text(m.import_by_handle({value})))")
    assert output == "True b'hello'"


def test_B30_what_is_not_inheritable_does_not_arrive(parent: Peer) -> None:
    parent("n = m.open_handle('x', READ)")
    value = parent("n")
    assert "InvalidHandleError" in born(parent, f"m.info({value})")
    assert parent("m.info(n).inherit") is False


def test_B30_a_list_of_handles_leaves_the_others_out(parent: Peer) -> None:
    parent("o = m.get_handle(a.number)")
    mine, other = parent("h"), parent("o")
    output = born(parent, f"print(m.info({other}).inherit, flush=True)\nm.info({mine})", handles="[o]")
    assert output.startswith("True") and "InvalidHandleError" in output
    assert parent.fails("m.set_flags(o, 1, 0)\nm.inherit_socket([o])").ntstatus == 0xC000000D


def test_B30_the_parents_close_does_not_concern_the_child(parent: Peer) -> None:
    output = born(parent, "import sys\nprint(reads('x'), m.info(4).handle_count)")
    assert output == "b'hello' 2"


def test_inheritance_goes_on_to_the_next_generation(parent: Peer) -> None:
    value = parent("h")
    nested = (
        "import subprocess, sys\n"
        "with m.inherit_socket() as channel:\n"
        "    environment = dict(os.environ, EXTMEM_INHERIT_FD=inheritance(channel))\n"
        f"    code = {'import os' + PEER!r} + 'print(text(m.import_by_handle({value})))'\n"
        "    command = [sys.executable, '-c', code]\n"
        "    grandchild = subprocess.Popen(command, env=environment, pass_fds=[channel.fileno()])\n"
        "grandchild.wait(60)"
    )
    assert born(parent, nested) == "b'hello'"


def test_what_was_inherited_comes_back_after_a_restart(own_runtime: Runtime, parent: Peer) -> None:
    value = parent("h")
    output = born(
        parent,
        "import signal\n"
        f"m.info({value})\nos.kill(m.status().pid, signal.SIGKILL)\n"
        f"print(text(m.import_by_handle({value})))",
    )
    assert output == "b'hello'"


def test_a_grandchild_without_the_channel_connects_like_anybody(parent: Peer) -> None:
    """The variable may reach a process that does not inherit the fd."""
    nested = (
        "import subprocess, sys\n"
        f"code = {'import os' + PEER!r} + 'print(reads(\"x\"))'\n"
        "subprocess.run([sys.executable, '-c', code], timeout=60)"
    )
    assert born(parent, nested) == "b'hello'"


def test_a_channel_number_of_nonsense_is_ignored(own_runtime: Runtime, start: Start, parent: Peer) -> None:
    for nonsense in ("77", "not a number", "0"):
        assert start({INHERIT_VARIABLE: nonsense})("reads('x')") == b"hello"


def test_a_child_that_dies_without_a_word_gives_everything_back(own_runtime: Runtime, parent: Peer) -> None:
    pid = own_runtime.broker_pid()
    assert pid is not None
    before = broker_fds(pid)
    parent(
        "import subprocess, sys\n"
        "with m.inherit_socket() as channel:\n"
        "    command = [sys.executable, '-c', 'input()']\n"
        "    child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[channel.fileno()])"
    )
    assert parent("m.info(h).handle_count") == 2
    parent("child.kill(); child.wait(); child.stdin.close()")
    wait_until(lambda: parent("m.info(h).handle_count") == 1, "the child's handle to be closed")
    wait_for_broker_fds(pid, before)


def test_a_channel_that_is_never_used_gives_everything_back(own_runtime: Runtime, parent: Peer) -> None:
    parent("channel = m.inherit_socket()")
    assert parent("m.info(h).handle_count") == 2
    parent("channel.close()")
    wait_until(lambda: parent("m.info(h).handle_count") == 1, "the copy to be closed")


def test_a_child_is_identified_by_the_kernel(own_runtime: Runtime, parent: Peer) -> None:
    """The broker made the channel; the child's pid comes with its first message."""
    value = parent("h")
    output = born(parent, f"m.info({value})\nprint(sorted(row.pid for row in m.snapshot()[0].holders), os.getpid())")
    pids, child = output.rsplit(" ", 1)
    assert int(child) in eval(pids)


# -- tickets


def test_an_offer_bound_to_a_child_ends_with_it(parent: Peer) -> None:
    parent("import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)")
    parent("t = m.offer(reference=a.number); m.bind_offer(t, child.pid)")
    assert parent("m.snapshot()[0].holders[0].tickets") == 1
    parent("child.kill(); child.wait(); child.stdin.close()")
    wait_until(lambda: parent("m.snapshot()[0].holders[0].tickets") == 0, "the offer to end")
    assert parent.fails("m.claim(t)").is_a("InvalidHandleError")


def test_an_offer_bound_to_the_dead_ends_at_once(parent: Peer) -> None:
    assert (
        parent("t = m.offer(reference=a.number); m.bind_offer(t, 2**22 + 1)\nm.snapshot()[0].holders[0].tickets") == 0
    )


def test_what_is_lost_is_freed_soon(start: Start, parent: Peer) -> None:
    other = start()
    parent(
        "from extmem.handles import HandleEntry\nfrom extmem.manager import Reference\n"
        "r, e = Reference(m), HandleEntry(m)\nr.record(i.number)\ne.record(h)\ndel r, e"
    )
    wait_until(lambda: other("m.snapshot()[0].holders[0].references") == 1, "the memory to be freed")
    assert other("m.snapshot()[0].holders[0].handles") == ()


def test_an_inherited_channel_without_credentials_is_refused() -> None:
    """Without SO_PASSCRED nothing proves the sender's identity: the transport returns no sender."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        transport.send(theirs, wire.encode(wire.Hello(1)))
        packet = transport.receive_many(ours, credentials=True)
    assert packet is not None and packet[2] is None
