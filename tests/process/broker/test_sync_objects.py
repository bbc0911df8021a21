"""Semaphores and fences in the broker: names, rights, pages by rights, types, restarts, and the news of a death."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.process.broker.conftest import Start
from tests.process.broker.steps import PEER

pytestmark = pytest.mark.slow("each test starts a broker and several processes")

SYNC = """
from extmem.sharing import timeline_page as tp
from extmem.sharing.descriptor.sync import SyncDescriptor
from extmem.sharing.kinds import Backing, ObjectKind
from extmem.sharing.payload import Page
from extmem.wire.process_start import start_time
SEMAPHORE, FENCE, MEMORY = ObjectKind.SEMAPHORE, ObjectKind.FENCE, ObjectKind.MEMORY

def sync(name, kind=SEMAPHORE, event=False, kmt=False, access=0x1F0003, sddl=None):
    page = payload(size=8192)
    files = [os.eventfd(0)] if event else [page]
    text = SyncDescriptor(object_kind=int(kind), handle_types=3, timeline=not event, host=True).encode()
    how = dict(name=None if kmt else name, access=access, sddl=sddl, inherit=True, object_kind=kind)
    how |= dict(backing=Backing.HOST_EVENT, pages=[Page(page, True, by_rights=True)]) if event else {}
    try:
        return m.export(files, text, share=Share.KMT if kmt else Share.NT, **how)
    finally:
        for fd in {page, *files}: os.close(fd)

def opened(name, kind=SEMAPHORE, access=0x02000000):
    return m.import_by_name(name, access, object_kind=kind)

def page_of(imported):
    return imported.payload.pages[0].handle if imported.payload.pages else imported.payload.fd

def signal_to(imported, value):
    with mmap.mmap(page_of(imported), 4096) as page:
        view = memoryview(page)
        tp.enter(view, os.getpid(), start_time(os.getpid()))
        view.cast('Q')[0] = value
        view.release()

def facts(imported):
    data = os.pread(page_of(imported), 4096, 0)
    return tp.read(memoryview(data))

def may_write(fd):
    try:
        mmap.mmap(fd, 4096).close()
        return True
    except PermissionError:
        return False

def sleep_on(imported, expected):
    # FUTEX_WAIT with 20 s at most, on a read-only mapping
    import ctypes
    page = mmap.mmap(page_of(imported), 4096, prot=mmap.PROT_READ)
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, ctypes.c_long(4096), 1, 1, page_of(imported), ctypes.c_long(0))
    time_limit = (ctypes.c_long * 2)(20, 0)
    libc.syscall(202 if os.uname().machine == 'x86_64' else 98, ctypes.c_void_p(address + 8), 0, expected, time_limit)
    return facts(imported)
None
"""


@pytest.fixture
def first(start: Start) -> Peer:
    return prepared(start)


@pytest.fixture
def second(start: Start) -> Peer:
    return prepared(start)


def prepared(start: Start, **options: Any) -> Peer:
    peer = start(**options)
    peer(SYNC)
    return peer


@pytest.mark.parametrize("event", [False, True])
def test_S23_the_right_to_signal_decides_who_may_write_the_page(first: Peer, second: Peer, event: bool) -> None:
    first(f"a = sync('s', event={event})")
    second("reader, writer = opened('s', access=0x80000000), opened('s')")
    assert second("reader.granted, writer.granted") == (0x2_0001, 0x1F_0003)
    assert second("may_write(page_of(reader)), may_write(page_of(writer))") == (False, True)
    assert second("reader.payload.writable, writer.payload.writable") == (False, True)
    # READ | WRITE of memory is wait without signal.
    assert second("may_write(page_of(opened('s', access=0x80000001)))") is False
    assert second("SyncDescriptor.parse(writer.descriptor).noun").endswith(
        "binary semaphore" if event else "timeline semaphore"
    )
    assert second("int(writer.object_kind), int(writer.backing)") == (2, 3 if event else 1)
    first("b = sync('read-only', access=0x80000000)\nh = m.get_handle(b.number)")
    assert first("m.info(h).granted_access, m.info(h).type_name") == (0x2_0001, "DxgkSharedSyncObject")


def test_S26_types_are_checked_by_name_by_handle_and_by_number(first: Peer, second: Peer) -> None:
    first(
        "a = sync('s')\nf = sync('f', FENCE, event=True)\nmem = share('m')\n"
        "k = sync('', kmt=True).kmt\nmk = share(kmt=True).kmt"
    )
    for name, kind in (("s", "MEMORY"), ("s", "FENCE"), ("f", "SEMAPHORE"), ("f", "MEMORY"), ("m", "SEMAPHORE")):
        refused = second.fails(f"opened({name!r}, {kind})")
        assert refused.is_a("ObjectTypeError") and refused.ntstatus == 0xC0000024
        handle = f"h = m.open_handle({name!r}, 0x02000000)"
        refused = second.fails(f"{handle}\nm.import_by_handle(h, object_kind={kind})")
        assert refused.is_a("ObjectTypeError") and refused.ntstatus == 0xC0000024
    for name, kind in (("s", "SEMAPHORE"), ("f", "FENCE"), ("m", "MEMORY")):
        assert second(f"h = m.open_handle({name!r}, 0x02000000)\nm.import_by_handle(h, object_kind={kind}).object_kind")
    number, of_memory = first("k, mk")
    assert second(f"m.import_by_kmt({number}, object_kind=SEMAPHORE).number")
    assert second.fails(f"m.import_by_kmt({number})").ntstatus == 0xC000000D
    assert second.fails(f"m.import_by_kmt({of_memory}, object_kind=SEMAPHORE)").ntstatus == 0xC000000D
    assert second.fails("sync('S')").is_a("NameTakenError")
    assert second.fails("share('s')").is_a("ObjectTypeError") or second.fails("share('s')").is_a("NameTakenError")


def test_files_that_cannot_be_of_the_kind_are_refused(first: Peer) -> None:
    text = "SyncDescriptor(object_kind=2, handle_types=1).encode()"
    how = "share=Share.NT, name='x', access=ALL, sddl=None, inherit=False"
    first("event = os.eventfd(0)\nfile = payload(size=8192)\nsmall = payload(size=100)")
    for files, kind, backing, pages in (
        ("[event]", "MEMORY", "HOST_EVENT", ""),
        ("[file]", "FENCE", "HOST_FILE", ""),
        ("[small]", "SEMAPHORE", "HOST_FILE", ""),
        ("[event]", "SEMAPHORE", "HOST_EVENT", "Page(small, True, True)"),
        ("[file]", "SEMAPHORE", "HOST_EVENT", ""),
        ("[event]", "SEMAPHORE", "HOST_FILE", ""),
    ):
        step = f"m.export({files}, {text}, {how}, object_kind={kind}, backing=Backing.{backing}, pages=[{pages}])"
        assert first.fails(step).ntstatus == 0xC000000D, step
    assert first(f"m.export([event], {text}, {how}, object_kind=SEMAPHORE, backing=Backing.HOST_EVENT).number")


@pytest.mark.parametrize("event", [False, True])
def test_tickets_carry_them_with_their_rights(first: Peer, second: Peer, event: bool) -> None:
    first(f"a = sync('s', event={event})\nr = opened('s', access=0x80000000)\nh = m.open_handle('s', 0x80000000)")
    first("k = sync('', kmt=True)")
    whole, reading, handle, number = first(
        "m.offer(reference=a.number), m.offer(reference=r.number), m.offer(handle=h), m.offer(kmt=k.kmt)"
    )
    second("a, r, h, k = (m.claim(ticket) for ticket in tickets)", tickets=[whole, reading, handle, number])
    assert second("[(int(i.object_kind), i.granted, may_write(page_of(i))) for i in (a, r)]") == [
        (2, 0x1F_0003, True),
        (2, 0x2_0001, False),
    ]
    assert second("m.info(h).granted_access, m.info(h).type_name") == (0x2_0001, "DxgkSharedSyncObject")
    assert second("may_write(page_of(m.import_by_handle(h, object_kind=SEMAPHORE)))") is False
    assert second("m.import_by_kmt(k, object_kind=SEMAPHORE).granted") == 0x2_0003
    # The claimed one is a signaler whose end is told.
    second("signal_to(a, 5)")
    os.kill(second("os.getpid()"), signal.SIGKILL)
    wait_until(lambda: first("facts(r).marked"), "the mark")


def test_children_inherit_their_handles(first: Peer) -> None:
    first("a = sync('s')\nh = m.get_handle(a.number)")
    value = first("h")
    script = (
        PEER
        + SYNC
        + f"print(m.info({value}).type_name, may_write(page_of(m.import_by_handle({value}, object_kind=2))))"
    )
    output = first(
        "import subprocess, sys\n"
        "with m.inherit_socket() as channel:\n"
        "    environment = dict(os.environ, EXTMEM_INHERIT_FD=inheritance(channel))\n"
        "    child = subprocess.run([sys.executable, '-c', 'import os\\n' + script], env=environment, timeout=60,\n"
        "        pass_fds=[channel.fileno()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)\n"
        "child.stdout.strip()",
        script=script,
    )
    assert output == "DxgkSharedSyncObject True"


def test_the_snapshot_says_what_they_are_and_the_value_of_a_timeline(first: Peer, second: Peer) -> None:
    first("a = sync('s')\ni = opened('s')\nsignal_to(i, 41)\nb = sync('b', FENCE, event=True)")
    second("i = opened('s', access=0x80000000)")
    rows = second("[(int(r.object_kind), r.name[-1], r.counter, r.handle_count) for r in m.snapshot()]")
    assert sorted(rows) == [(2, "s", 41, 1), (3, "b", None, 2)]
    holders = second("{h.pid: h.rights for r in m.snapshot() for h in r.holders if r.object_kind == 2}")
    assert holders == {first("os.getpid()"): 0x1F_0003, second("os.getpid()"): 0x2_0001}


@pytest.mark.parametrize("event", [False, True])
def test_S59_the_death_of_a_signaler_wakes_its_waiters(start: Start, first: Peer, event: bool) -> None:
    first(f"a = sync('s', event={event})")
    doomed = prepared(start)
    doomed("i = opened('s')\nsignal_to(i, 7)")
    pid = doomed("os.getpid()")
    first(
        "i = opened('s')\nfound = []\n"
        "waiting = threading.Thread(target=lambda: found.append(sleep_on(i, 0)))\nwaiting.start()"
    )
    os.kill(pid, signal.SIGKILL)
    first("waiting.join(20)")
    wait_until(lambda: first("facts(i).marked"), "the mark")
    value, state, who, reached = first("f = facts(i)\nf.value, f.state, f.pid, f.reached")
    assert (value, state, who, reached) == (7, 1, pid, 7)
    assert first("found[0].marked and facts(i).sequence == 1")
    assert first("facts(i).abandoned and not facts(i).closed and 0 <= time.monotonic_ns() - facts(i).since < 60e9")
    assert first("[s.dead for s in tp.signalers(memoryview(os.pread(page_of(i), 4096, 0)))]") == [False, True]


def test_the_death_of_a_waiter_marks_nothing(start: Start, first: Peer) -> None:
    first("a = sync('s')\ni = opened('s')\nsignal_to(i, 1)")
    waiter = prepared(start)
    waiter("i = opened('s')")
    pid = waiter("os.getpid()")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: first(f"not any(h.pid == {pid} for r in m.snapshot() for h in r.holders)"), "its end")
    assert not first("facts(i).marked")


def test_a_creator_that_dies_before_any_signal_is_told_of_and_one_that_closes_is_not(
    start: Start, second: Peer
) -> None:
    creator = prepared(start)
    creator("a, b = sync('a'), sync('b')")
    second("a, b = opened('a'), opened('b')")
    creator("m.release(b.number)")
    assert not second("facts(b).marked")  # this process may signal it
    os.kill(creator("os.getpid()"), signal.SIGKILL)
    wait_until(lambda: second("facts(a).marked"), "the mark")
    assert not second("facts(b).marked")


def test_the_last_signaler_that_closes_is_told_of(first: Peer, second: Peer) -> None:
    first("a = sync('s')\ni = opened('s')\nsignal_to(i, 3)\nm.release(a.number)")
    second("i = opened('s', access=0x80000000)")
    assert not second("facts(i).marked")
    first("drop(i)")
    found = second("f = facts(i)\n(f.state, f.closed, f.reached, f.pid)")
    assert found == (1, True, 3, first("os.getpid()"))


@pytest.mark.parametrize("event", [False, True])
def test_they_survive_the_broker_and_the_next_one_tells_of_the_dead(
    own_runtime: Runtime, start: Start, first: Peer, second: Peer, event: bool
) -> None:
    first(f"a = sync('s', event={event})\ni = opened('s')\nsignal_to(i, 1)\nh = m.get_handle(a.number)")
    second("r = opened('s', access=0x80000000)")
    doomed = prepared(start)
    doomed("i = opened('s')\nsignal_to(i, 2)")
    pid = doomed("os.getpid()")
    own_runtime.kill_broker()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: second("facts(r).marked"), "the mark of the next broker")
    assert second("facts(r).pid") == pid
    assert second("opened('s').granted, may_write(page_of(opened('s')))") == (0x1F_0003, True)
    assert second("may_write(page_of(opened('s', access=0x80000000)))") is False
    assert second.fails("m.import_by_name('s')").is_a("ObjectTypeError")
    assert first("m.info(h).type_name") == "DxgkSharedSyncObject"
    assert not second("facts(r).flags")
    first("m.close(h)")
    os.kill(first("os.getpid()"), signal.SIGKILL)
    wait_until(lambda: second("facts(r).marks") == 2, "the mark of the first")


def test_a_page_that_may_not_be_written_or_holds_garbage_harms_nobody(start: Start, second: Peer) -> None:
    hostile = prepared(start)
    hostile(
        "a = sync('a')\ni = opened('a')\nos.pwrite(page_of(i), os.urandom(4096), 0)\nb = sync('b')\nj = opened('b')"
    )
    hostile("fcntl.fcntl(page_of(j), fcntl.F_ADD_SEALS, 0x10)")  # F_SEAL_FUTURE_WRITE
    second("i, j, k = opened('a'), opened('b'), sync('k')\nsignal_to(opened('k'), 1)")
    pid = hostile("os.getpid()")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: second(f"not any(h.pid == {pid} for r in m.snapshot() for h in r.holders)"), "its end")
    assert second("facts(opened('k')).value") == 1
