"""Payloads of several handles, and companion pages: what is exported is what importers get, in order, and counted."""

from __future__ import annotations

import fcntl
import os
import signal

import pytest

from extmem import wire
from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from tests.process.broker.conftest import Start
from tests.process.broker.steps import ASK, broker_fds, next_broker, raw, wait_for_broker_fds
from tests.process.broker.test_recovery import stopped

MANY = """
from extmem.sharing.payload import Page
def many(name, count, pages=(), kmt=False, sddl=None):
    files = [payload(b'%05d' % number) for number in range(count)]
    tables = [payload(b'page%d' % number) for number in range(len(pages))]
    try:
        return m.export(
            files, b'self-description', share=Share.KMT if kmt else Share.NT, name=None if kmt else name, access=ALL,
            sddl=sddl, inherit=True, pages=[Page(fd, writable) for fd, writable in zip(tables, pages)],
        )
    finally:
        for fd in (*files, *tables): os.close(fd)
def texts(imported):
    return [os.pread(fd, 5, 0) for fd in imported.payload.fds]
def right(imported, count):
    return texts(imported) == [b'%05d' % number for number in range(count)]
def writes(fd):
    try:
        with mmap.mmap(fd, 4096) as view: view[8:12] = b'mine'
        return True
    except PermissionError:
        return False
"""


@pytest.fixture
def exporter(start: Start) -> Peer:
    peer = start()
    peer(MANY)
    return peer


@pytest.fixture
def importer(start: Start) -> Peer:
    peer = start()
    peer(MANY)
    return peer


@pytest.mark.parametrize("count", [3, 253, 254, 600])
def test_an_import_gives_the_files_of_the_export_in_order(exporter: Peer, importer: Peer, count: int) -> None:
    exporter(f"a = many('x', {count})")
    assert importer(f"i = m.import_by_name('x', READ_WRITE)\nright(i, {count}), i.capacity, i.backing") == (
        True,
        count * 4096,
        1,
    )
    assert importer("write(i, b'fresh')\nlen(fds() * [0]) > 0 and i.payload.fds[0] == i.payload.fd")
    assert exporter("j = m.import_by_name('x')\ntexts(j)[0]") == b"fresh"
    assert importer(
        f"k = m.import_by_name('x', READ)\nright(k, {count}) or texts(k)[1:3], writes(k.payload.fds[-1])"
    ) == (
        [b"00001", b"00002"],
        False,
    )
    (row,) = importer("m.snapshot()")
    assert row.handle_count == count


def test_by_handle_number_and_ticket_too(exporter: Peer, importer: Peer) -> None:
    exporter("a = many('x', 300)\nk = many(None, 300, kmt=True)")
    assert importer("right(m.import_by_kmt(number), 300)", number=exporter("k.kmt"))
    assert importer("right(m.claim(ticket), 300)", ticket=exporter("m.offer(reference=a.number)"))
    assert importer("h = m.open_handle('x', READ)\nright(m.import_by_handle(h), 300)")


def test_each_file_is_counted_and_closed(own_runtime: Runtime, exporter: Peer, importer: Peer) -> None:
    exporter("share('other')")
    importer("reads('other')")
    pid = own_runtime.broker_pid()
    before, used = broker_fds(pid), importer("m.status().used")
    here, there = exporter("fds()"), importer("fds()")
    exporter("a = many('x', 300, pages=[False])")
    assert importer("m.status().used") == used + 301
    wait_for_broker_fds(pid, before + 301)
    importer("i = m.import_by_name('x', READ_WRITE)")
    assert importer("fds()") == there + 301
    exporter("m.release(a.number)")
    assert importer("m.status().used") == used + 301
    importer("drop(i)")
    assert (exporter("fds()"), importer("fds()"), importer("m.status().used")) == (here, there, used)
    wait_for_broker_fds(pid, before)


def test_too_many_are_refused_and_nothing_is_left(own_runtime: Runtime, exporter: Peer) -> None:
    exporter("share('other')\nfd = payload()")
    before, used = exporter("fds(), m.status().used")
    how = "b'', share=Share.NT, name='x', access=ALL, sddl=None, inherit=False"
    error = exporter.fails(f"m.export([fd] * 4097, {how})")
    assert error.is_a("InvalidHandleError") and "1 to 4096 handles" in error.message and "4097" in error.message
    error = exporter.fails(f"m.export([], {how})")
    assert error.is_a("InvalidHandleError") and "this one has 0" in error.message
    assert exporter("fds(), m.status().used") == (before, used)


def test_a_refused_export_of_many_leaves_nothing(own_runtime: Runtime, exporter: Peer) -> None:
    """The name is taken: the handles that were attached before are closed, and taken off the accounts."""
    exporter("a = many('x', 2)")
    pid = own_runtime.broker_pid()
    before, used, here = broker_fds(pid), exporter("m.status().used"), exporter("fds()")
    assert exporter.fails("many('x', 600)").is_a("NameTakenError")
    wait_for_broker_fds(pid, before)
    assert (exporter("m.status().used"), exporter("fds()")) == (used, here)
    assert exporter("b = many('y', 600)\nright(m.import_by_name('y'), 600)")


def test_what_was_attached_and_given_up_is_dropped(own_runtime: Runtime, exporter: Peer) -> None:
    exporter("share('other')\nfd = payload()\n" + ASK)
    pid = own_runtime.broker_pid()
    before, used = broker_fds(pid), exporter("m.status().used")
    exporter("with m.client.lock: m.client.exchange(wire.AttachFds(), [fd] * 253)")
    assert exporter("m.status().used") == used + 253
    exporter("m.kmt_alive(5)")
    assert exporter("m.status().used") == used
    wait_for_broker_fds(pid, before)


def test_fetching_without_an_import_is_refused(exporter: Peer, importer: Peer) -> None:
    exporter("a = many('x', 300)")
    importer(ASK)
    reply = importer.fails("ask(wire.FetchFds(payload_id, 2, 253))", payload_id=exporter("a.payload"))
    assert reply.is_a("InvalidHandleError") and "Import it first" in reply.message
    assert importer("right(m.import_by_name('x'), 300)")


@pytest.mark.parametrize("count", [3, 300])
def test_the_next_broker_gets_all_of_them(own_runtime: Runtime, exporter: Peer, importer: Peer, count: int) -> None:
    exporter(f"a = many('x', {count}, pages=[True, False])")
    importer("i = m.import_by_name('x', READ)")
    own_runtime.kill_broker()
    assert importer(f"right(m.import_by_name('x', READ_WRITE), {count})")
    exporter("m.release(a.number)")
    assert importer(f"right(m.import_by_name('x', READ), {count}), len(m.snapshot()[0].holders)") == (True, 1)
    own_runtime.kill_broker()
    assert importer(f"right(m.import_by_name('x', READ), {count}), len(m.snapshot())") == (True, 1)
    assert importer("[page.writable for page in i.payload.pages]") == [True, False]


def test_a_record_of_many_takes_its_own_files_alone(own_runtime: Runtime, exporter: Peer) -> None:
    exporter("a = many('x', 3)")
    record = exporter("m.client.state.references[a.number][5]")
    with stopped(exporter):
        own_runtime.kill_broker()
        with next_broker(own_runtime), raw(own_runtime, hello=False) as client:
            assert client.hello(announcing=True).recovering
            files = [os.memfd_create("other", os.MFD_ALLOW_SEALING) for _ in range(3)]
            for fd in files:
                os.ftruncate(fd, 4096)
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            for count, words in ((3, "other files"), (2, "2 handles came, and the record is of 3")):
                reply = client.ask(wire.AnnounceRecord(record, b"self-description", count), *files[:count])
                assert isinstance(reply, wire.Refusal) and words in reply.detail
            for fd in files:
                os.close(fd)
            os.kill(exporter.pid, signal.SIGCONT)
            assert exporter("right(m.import_by_name('x'), 3)")


def test_companion_pages_have_rights_of_their_own(exporter: Peer, importer: Peer) -> None:
    exporter("a = many('x', 2, pages=[False, True], sddl='D:(A;;GA;;;WD)')")
    importer("i = m.import_by_name('x', READ)")
    assert importer("texts(i), [os.pread(page.handle, 5, 0) for page in i.payload.pages]") == (
        [b"00000", b"00001"],
        [b"page0", b"page1"],
    )
    # A reader may write to the control page, and to nothing else; a writer may not write to the table.
    assert importer("[writes(fd) for fd in i.payload.fds], [writes(page.handle) for page in i.payload.pages]") == (
        [False, False],
        [False, True],
    )
    importer("j = m.import_by_name('x', READ_WRITE)")
    assert importer("[writes(fd) for fd in j.payload.fds], [writes(page.handle) for page in j.payload.pages]") == (
        [True, True],
        [False, True],
    )
    assert importer("[page.writable for page in j.payload.pages]") == [False, True]
    assert exporter("os.pread(m.import_by_name('x').payload.pages[1].handle, 4, 8)") == b"mine"


def test_a_page_that_its_exporter_cannot_write_is_not_given_as_writable(exporter: Peer) -> None:
    exporter(
        "fd = payload(b'data')\npage = os.open(f'/proc/self/fd/{payload()}', os.O_RDONLY)\n"
        "how = dict(share=Share.NT, name='x', access=ALL, sddl=None, inherit=False)"
    )
    error = exporter.fails("m.export([fd], b'', pages=[Page(page, True)], **how)")
    assert error.is_a("InvalidHandleError") and "fd is read-only" in error.message
    assert exporter("m.export([fd], b'', pages=[Page(page, False)], **how).object > 0")
    error = exporter.fails("m.export([], b'', pages=[Page(page, False)], **how)")
    assert error.is_a("InvalidHandleError") and "with 1 pages" in error.message


def test_the_same_files_with_other_pages_are_refused(exporter: Peer) -> None:
    exporter(
        "fd, page = payload(b'data'), payload(b'page')\n"
        "how = dict(share=Share.NT, access=ALL, sddl=None, inherit=False)\n"
        "a = m.export([fd], b'', name='x', pages=[Page(page, True)], **how)"
    )
    error = exporter.fails("m.export([fd], b'', name='y', pages=[Page(page, False)], **how)")
    assert error.is_a("InvalidHandleError") and "companion pages of the modes [2]" in error.message
    assert exporter("m.export([fd], b'', name='y', pages=[Page(page, True)], **how).payload == a.payload")
