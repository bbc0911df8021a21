"""What a process holds: one fd per payload and open mode, and nothing after it has released all."""

from __future__ import annotations

import os
import resource
import signal

import pytest

from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.process.broker.conftest import Start
from tests.process.broker.steps import BECOME, SYSTEM, broker_fds, system_broker
from tests.process.broker.test_resume import stopped
from tests.sigstop import stop


@pytest.fixture
def exporter(start: Start) -> Peer:
    peer = start()
    peer("a = share('x', b'hello')")
    return peer


def test_a_thousand_imports_need_one_descriptor(own_runtime: Runtime, start: Start, exporter: Peer) -> None:
    other = start()
    other("drop(m.import_by_name('x'))")
    pid = own_runtime.broker_pid()
    assert pid is not None
    ours, theirs = other("fds()"), broker_fds(pid)
    other("held = [m.import_by_name('x') for _ in range(1000)]")
    assert other("fds()") == ours + 1 and broker_fds(pid) == theirs
    other("held += [m.import_by_name('x', READ) for _ in range(100)]")
    assert other("fds(), len({i.payload.fd for i in held})") == (ours + 2, 2)
    other("for i in held: drop(i)\ndel held, i")
    assert other("fds(), m.client.state.payloads") == (ours, {})
    assert exporter("m.snapshot()[0].holders[0].references, len(m.snapshot()[0].holders)") == (1, 1)


def test_a_hold_outlives_the_memory_object(start: Start, exporter: Peer) -> None:
    other = start()
    other("i = m.import_by_name('x'); m.release(i.number)\nj = m.import_by_name('x')")
    assert other("text(i), text(j), i.payload.fd != j.payload.fd") == (b"hello", b"hello", True)
    other("i.payload.close()")
    assert other("text(j)") == b"hello"


def test_a_handle_needs_a_descriptor_too_and_gives_it_back(start: Start, exporter: Peer) -> None:
    other = start()
    before = other("m.kmt_alive(1)\nfds()")
    other("h = m.open_handle('x', READ_WRITE)")
    assert other("fds()") == before + 1
    assert other("text(m.import_by_handle(h))") == b"hello"
    other("for n in list(m.client.state.references): m.release(n)\ngc.collect()\nm.close(h)")
    assert other("fds()") == before


def test_closing_the_source_of_a_duplicate_lets_go_of_it(start: Start, exporter: Peer) -> None:
    other = start()
    exporter("pass")
    before = other("m.kmt_alive(1)\nfds()")
    other(
        "h = m.open_handle('x', READ_WRITE)\n"
        "m.duplicate(h, desired=None, inherit=False, same_attributes=False, close_source=True, into=pid)",
        pid=exporter.pid,
    )
    assert other("fds(), m.client.state.handles") == (before, {})
    assert other.fails("m.info(h)").is_a("InvalidHandleError")
    other("h = m.open_handle('x', READ)")
    error = other.fails(
        "m.duplicate(h, desired=None, inherit=False, same_attributes=False, close_source=True, into=2**22 + 1)"
    )
    assert error.ntstatus == 0xC000000B and "no handle table" in error.message
    assert other("fds(), m.client.state.handles") == (before, {}), "the source is closed though duplicating failed"
    assert other("drop(m.import_by_name('x'))\nfds()") == before


@pytest.mark.parametrize("same", [True, False])
def test_a_handle_that_takes_the_place_of_its_source_is_held(own_runtime: Runtime, start: Start, same: bool) -> None:
    """DUPLICATE_CLOSE_SOURCE within the process: with the same rights the value stays, with others it does not."""
    peer = start()
    peer("a = share('x', b'hello')\nh = m.get_handle(a.number)\nm.release(a.number)")
    peer(
        f"k = m.duplicate(h, desired={'None' if same else 'READ'}, inherit=True, same_attributes=False,\n"
        "    close_source=True, into=None)"
    )
    assert peer("k == h, list(m.client.state.handles) == [k]") == (same, True)
    own_runtime.kill_broker()
    assert peer("reads('x'), m.info(k).inherit") == (b"hello", True)
    peer("m.close(k)")
    assert peer("m.client.state.handles, m.client.state.payloads, m.snapshot()") == ({}, {}, [])


def test_many_threads_share_one_manager(start: Start, exporter: Peer) -> None:
    other = start()
    other(
        "errors = []\n"
        "def work(number):\n"
        "    try:\n"
        "        for turn in range(40):\n"
        "            e = share(f'{number}-{turn}', b'mine.')\n"
        "            assert reads('x') == b'hello' and reads(f'{number}-{turn}') == b'mine.'\n"
        "            h = m.get_handle(e.number); m.release(e.number); m.close(h)\n"
        "    except BaseException as error: errors.append(repr(error))\n"
        "threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join(50)"
    )
    assert other("s = m.client.state\nerrors, s.references, s.handles, s.payloads") == ([], {}, {}, {})
    assert exporter("len(m.snapshot())") == 1


def test_a_signal_handler_may_not_ask_in_the_middle_of_a_question(own_runtime: Runtime, start: Start) -> None:
    peer = start()
    peer(
        "share('x', b'hello')\nseen = []\n"
        "def handler(number, frame):\n"
        "    try: seen.append(reads('x'))\n"
        "    except HandleStateError as error: seen.append(str(error))\n"
        "signal.signal(signal.SIGALRM, handler)\nsignal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n"
        "answers = {reads('x') for _ in range(300)}\nsignal.setitimer(signal.ITIMER_REAL, 0)"
    )
    assert peer("answers") == {b"hello"}
    assert peer("all(s == b'hello' or 'signal handler' in s for s in seen)")
    assert peer("reads('x')") == b"hello"


HANDLERS = {
    "opens": "drop(m.import_by_name('x'))",
    "exports": "made = share(None, b'other'); text_of_it = os.pread(payload_fd, 5, 0); m.release(made.number)",
    "closes": "h = m.open_handle('x', READ); m.close(h)",
    "closes what is the interrupted call's payload": "extra and m.release(extra[-1]) is None and extra.pop()",
}


@pytest.mark.parametrize("what", HANDLERS)
def test_a_signal_handler_undoes_nothing_of_the_interrupted_call(own_runtime: Runtime, start: Start, what: str) -> None:
    """Each call succeeds or is refused; what the calls made exists, and the broker and the process agree."""
    peer = start()
    peer(
        "share('x', b'hello')\npayload_fd = payload(b'other')\n"
        "extra = [m.import_by_name('x').number for _ in range(200)]\nworked, refused, inside = [], [], []\n"
        "def handler(number, frame):\n"
        "    if inside: return\n"  # a handler may interrupt a handler, which has then freed what this one would free
        "    inside.append(1)\n"
        f"    try: {HANDLERS[what]}\n"
        "    except HandleStateError as error: refused.append(str(error))\n"
        "    else: worked.append(1)\n"
        "    finally: inside.clear()\n"
        "signal.signal(signal.SIGALRM, handler)"
    )
    peer(
        "def work(turn):\n"
        "    i = m.import_by_name('x'); h = m.get_handle(1); k = m.duplicate(h, desired=None, inherit=False,\n"
        "        same_attributes=False, close_source=True, into=None)\n"
        "    e = share(f'n{turn}', b'named'); j = m.import_by_handle(k)\n"
        "    assert (text(i), text(j), reads(f'n{turn}')) == (b'hello', b'hello', b'named')\n"
        "    m.release(i.number); m.release(j.number); m.release(e.number); m.close(k)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)\n"
        "for turn in range(300): work(turn)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)"
    )
    assert peer("all('signal handler' in s for s in refused), bool(worked), bool(refused)") == (True, True, True)
    peer("for memory in extra: m.release(memory)")
    assert peer("list(m.client.state.references), m.client.state.handles, m.client._stale") == ([1], {}, [])
    assert peer("[(h.references, h.handles) for row in m.snapshot() for h in row.holders]") == [(1, ())]


def test_what_a_signal_handler_could_not_close_is_closed_by_the_next_try(own_runtime: Runtime, start: Start) -> None:
    """The objects of the library: closing in a handler works or is refused, and can be repeated."""
    peer = start()
    peer(
        "import extmem\ndevice = extmem.open_device(kind='host')\nrefused, done = [], []\n"
        "memories = [device.allocate(16, name=f'n{n}') for n in range(400)]\n"
        "def handler(number, frame):\n"
        "    if memories:\n"
        "        memory = memories[-1]\n"
        "        try: memory.close()\n"
        "        except HandleStateError as error: refused.append(str(error))\n"
        "        else:\n"
        "            done.append(memory)\n"
        "            if memory in memories: memories.remove(memory)\n"  # a handler may interrupt a handler
        "signal.signal(signal.SIGALRM, handler)\nsignal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)\n"
        "for turn in range(400):\n"
        "    with device.allocate(16, name='mine') as mine: extmem.open('mine').close()\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "for memory in memories: memory.close()"
    )
    assert peer("all('signal handler' in s for s in refused), bool(done), bool(refused)") == (True, True, True)
    assert peer("m.snapshot(), m.client.state.references") == ([], {})


AT_THE_REQUEST = """
import extmem
from extmem.manager import manager
client = manager().client
device = extmem.open_device(kind='host')
memory = device.allocate(16, name='n')
real = client.perform
def meanwhile(nested):
    def perform(*arguments):
        client.perform = real
        nested()
        return real(*arguments)
    client.perform = perform
"""


def test_a_handle_that_a_signal_handler_closed_before_the_request_is_not_closed_again(start: Start) -> None:
    """The value may belong to another handle by then."""
    peer = start()
    peer(AT_THE_REQUEST)
    peer("handle = memory.export_handle()\nother = []")
    peer("def nested():\n    handle.close()\n    other.append(memory.export_handle())")
    peer("value = int(handle)\nmeanwhile(nested)\nhandle.close()")
    assert peer("handle.closed, int(other[0]) == value") == (True, True), "this is the dangerous case"
    peer("extmem.open(other[0]).close()\nother.pop().close()\nmemory.close()")
    assert peer("manager().snapshot(), client.state.handles") == ([], {})


def test_memory_that_a_signal_handler_freed_before_the_request_is_not_freed_again(start: Start) -> None:
    peer = start()
    peer(AT_THE_REQUEST)
    peer(
        "number, = client.state.references\nmeanwhile(lambda: client.release_once(number))\nclient.release_once(number)"
    )
    assert peer("client.perform == real, client.state.references") == (True, {})
    peer("memory.close()")


@pytest.mark.parametrize("kind", ["TimeoutError", "ConnectionResetError", "BlockingIOError", "OSError"])
def test_a_handlers_exception_is_not_taken_for_the_brokers_silence(
    own_runtime: Runtime, start: Start, exporter: Peer, kind: str
) -> None:
    """`signal.alarm` and a handler that raises TimeoutError: the usual way to limit the time of a call."""
    other = start()
    other("m.kmt_alive(1)")  # connected
    other(f"def handler(number, frame): raise {kind}('the handler raised it')")
    other("signal.signal(signal.SIGALRM, handler)\nraised = None")
    with stopped(own_runtime.broker_pid()):
        other(
            "signal.setitimer(signal.ITIMER_REAL, 0.05)\ntry: m.import_by_name('x')\n"
            "except Exception as error: raised = error\nsignal.setitimer(signal.ITIMER_REAL, 0)"
        )
    assert other("type(raised).__name__, 'the handler raised it' in str(raised)") == (kind, True)
    assert other("text(m.import_by_name('x'))") == b"hello"
    assert exporter("m.snapshot()[0].holders[0].references") == 1


def test_an_interrupted_call_costs_nothing(own_runtime: Runtime, start: Start) -> None:
    peer = start()
    peer("a = share('x', b'hello')")
    pid = own_runtime.broker_pid()
    assert pid is not None
    stop(pid)
    error = peer.fails(
        "def interrupt(*_): raise KeyboardInterrupt\n"
        "signal.signal(signal.SIGALRM, interrupt)\nsignal.setitimer(signal.ITIMER_REAL, 0.2)\nreads('x')"
    )
    os.kill(pid, signal.SIGCONT)
    assert error.is_a("KeyboardInterrupt")
    assert wait_until(lambda: peer("reads('x')") == b"hello", "it to go on")
    wait_until(
        lambda: peer("[(h.pid, h.references) for h in m.snapshot()[0].holders]") == [(peer.pid, 1)], "one holder"
    )


def test_a_broker_without_descriptors_says_so_and_goes_on(own_runtime: Runtime, start: Start, exporter: Peer) -> None:
    pid = own_runtime.broker_pid()
    assert pid is not None
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (broker_fds(pid) + 2, limits[1]))
    try:
        error = exporter.fails("more = [share(None) for _ in range(5)]")
        assert error.is_a("QuotaError") and "ulimit -n" in error.message
        assert exporter("reads('x')") == b"hello"
        assert exporter.fails("m.inherit_socket()").is_a("QuotaError")
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert exporter("more = [share(None) for _ in range(5)]\nlen(more), reads('x')") == (5, b"hello")
    assert own_runtime.broker_pid() == pid


def test_a_client_without_descriptors_gets_an_error_that_names_them(start: Start, exporter: Peer) -> None:
    other = start()
    other(
        "import resource\nm.kmt_alive(1)\nsoft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "def limit(n): resource.setrlimit(resource.RLIMIT_NOFILE, (n, hard))"
    )
    other("free = os.dup(0); os.close(free)")
    error = other.fails("limit(free)\ntry: reads('x')\nfinally: limit(soft)")
    assert error.is_a("OutOfMemoryError") and "no file descriptor is left" in str(error)
    assert wait_until(lambda: other("reads('x')") == b"hello", "it to work again")


def test_a_manager_can_leave_and_come_again(start: Start, exporter: Peer) -> None:
    other = start()
    other("h = m.open_handle('x', READ)\nthreads = threading.active_count()")
    other("m.disconnect()")
    wait_until(lambda: exporter("len(m.snapshot()[0].holders)") == 1, "it to have left")
    assert other.fails("reads('x')").is_a("HandleStateError")
    assert other("m = manager()\nreads('x'), threading.active_count() == threads") == (b"hello", True)


def test_a_closed_process_leaves_at_once(start: Start, exporter: Peer) -> None:
    other = start()
    other("i = m.import_by_name('x')\nh = m.open_handle('x', READ)")
    other.leave()
    wait_until(lambda: exporter("len(m.snapshot()[0].holders)") == 1, "it to have left", deadline=5)


def test_names_of_all_users_need_the_systems_broker(start: Start, exporter: Peer) -> None:
    for call in ("share('Global\\\\x')", "m.import_by_name('GLOBAL\\\\x')", "m.open_handle('Global\\\\x', READ)"):
        error = exporter.fails(call)
        assert error.is_a("UnsupportedError") and "system-wide broker" in error.message
    assert exporter.fails("share('Local\\\\Global\\\\x')").is_a("AccessDeniedError")


def test_the_systems_broker_serves_all_users_each_with_their_rights(own_runtime: Runtime, start: Start) -> None:
    with system_broker(own_runtime):
        owner, other = start(), start()
        owner(SYSTEM)
        other(BECOME + "become()\n" + SYSTEM)
        owner("share('Global\\\\open', b'hello', sddl='D:(A;;GR;;;WD)')\nshare('mine', b'hello')")
        assert other("i = m.import_by_name('Global\\\\open')\ni.granted & 1, text(i)") == (0, b"hello")
        assert other.fails("mmap.mmap(i.payload.fd, 4096)").is_a("PermissionError")
        assert other.fails("os.open(f'/proc/self/fd/{i.payload.fd}', os.O_RDWR)").is_a("PermissionError")
        assert other.fails("m.import_by_name('mine')").is_a("AccessDeniedError")
        ticket = owner("m.offer(reference=1)")
        assert other.fails("m.claim(ticket)", ticket=ticket).is_a("AccessDeniedError")
