"""After a killed broker the next one accepts only records, only in the recovery window, from those who had them."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from extmem import wire
from extmem.broker.signing import digest_of_files
from extmem.objects import Status
from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.broker_files import JOURNAL
from tests.process.broker.conftest import Start
from tests.process.broker.steps import (
    BECOME,
    OTHER,
    SYSTEM,
    RawClient,
    next_broker,
    raw,
    system_broker,
)

RECORD = "m.client.state.references[{}][5]"
NEVER = {"EXTMEM_BROKER_START": "never"}


def memfd(text: bytes = b"evil!") -> int:
    fd = os.memfd_create("payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    os.pwrite(fd, text, 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


@contextmanager
def stopped(*peers: Peer) -> Iterator[None]:
    """These peers do nothing meanwhile."""
    for peer in peers:
        os.kill(peer.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for peer in peers:
            os.kill(peer.pid, signal.SIGCONT)


def announcer(runtime: Runtime) -> RawClient:
    client = RawClient(runtime.path)
    assert client.hello(announcing=True).recovering
    return client


def denied(reply: wire.Reply | None, words: str) -> None:
    assert isinstance(reply, wire.Refusal) and reply.status == Status.ACCESS_DENIED, reply
    assert words in reply.detail, reply


@pytest.fixture
def victim(own_runtime: Runtime, start: Start) -> Peer:
    peer = start(NEVER)
    start()("share('starts it')")
    peer("a = share('x', b'hello')\nh = m.get_handle(a.number)")
    return peer


def test_a_name_goes_to_nobody_who_has_no_record_of_it(own_runtime: Runtime, victim: Peer, start: Start) -> None:
    """The attack: announce the victim's ids with another file, before the victim does."""
    record = victim(RECORD.format("a.number"))
    facts = wire.decode_record(record[wire.SIGNATURE :])
    with stopped(victim):
        own_runtime.kill_broker()
        with next_broker(own_runtime):
            evil = memfd()
            found = os.fstat(evil)
            forged = [
                wire.encode(facts),
                bytes(16) + wire.encode(facts),
                record[:16] + wire.encode(_changed(facts, files=digest_of_files(((found.st_dev, found.st_ino),)))),
                record[:16] + wire.encode(_changed(facts, backing=2, files=b"")),
                record[:16] + wire.encode(_changed(facts, holder=facts.holder + 1)),
                record[:-1] + bytes([record[-1] ^ 1]),
                b"",
            ]
            client = announcer(own_runtime)
            for data in forged:
                denied(client.ask(wire.AnnounceRecord(data, b"self-description", 1), evil), "signature")
            # The true record, which another process of the same user may have, with another file.
            denied(client.ask(wire.AnnounceRecord(record, b"self-description", 1), evil), "other files")
            denied(
                client.ask(wire.AnnounceRecord(record, b"another description", 1), evil),
                "the descriptor differs from the record's",
            )
            for request in (
                wire.AnnounceReference(1, facts.payload, facts.object, True, 0xF0001, True),
                wire.AnnounceHandle(4, facts.payload, facts.object, 0xF0001, False, False),
                wire.AnnounceTicket(bytes(16), "reference", facts.payload, facts.object, 0x20001, False),
            ):
                denied(client.ask(request), "no record")
            assert client.ask(wire.Announced()) == wire.Done()
            client.close()
            os.close(evil)
            os.kill(victim.pid, signal.SIGCONT)
            assert victim("reads('x'), m.info(h).name.endswith('x')") == (b"hello", True)


def _changed(facts: wire.HolderRecord, **changes: Any) -> wire.HolderRecord:
    import msgspec

    return msgspec.structs.replace(facts, **changes)


def test_a_record_is_believed_with_its_own_file(own_runtime: Runtime, victim: Peer) -> None:
    """The positive twin of the attack: the same messages with the true file."""
    record, fd = victim(f"{RECORD.format('a.number')}, list(m.client.state.payloads.values())[0].fds[2][0].fd")
    facts = wire.decode_record(record[wire.SIGNATURE :])
    with stopped(victim):
        own = os.open(f"/proc/{victim.pid}/fd/{fd}", os.O_RDONLY)
        own_runtime.kill_broker()
        with next_broker(own_runtime):
            client = announcer(own_runtime)
            back = client.ask(wire.AnnounceRecord(record, b"self-description", 1), own)
            assert back == wire.RecordBack(facts.payload, 0, True)
            memory = wire.AnnounceReference(7, facts.payload, facts.object, True, 0xF0001, True)
            assert client.ask(memory) == wire.Done()
            assert client.ask(wire.Announced()) == wire.Done()
            assert isinstance(client.ask(wire.GetHandle(7)), wire.Handle)
            client.close()
        os.close(own)


def test_nothing_is_announced_outside_the_window(own_runtime: Runtime, victim: Peer) -> None:
    record = victim(RECORD.format("a.number"))
    facts = wire.decode_record(record[wire.SIGNATURE :])
    client = RawClient(own_runtime.path)
    assert not client.hello(announcing=True).recovering
    evil = memfd()
    for request, fd in (
        (wire.AnnounceRecord(record, b"self-description", 1), evil),
        (wire.AnnounceReference(1, facts.payload, facts.object, True, 0xF0001, True), None),
        (wire.AnnounceHandle(4, facts.payload, facts.object, 0xF0001, False, False), None),
        (wire.AnnounceTicket(bytes(16), "reference", facts.payload, facts.object, 0x20001, False), None),
        (wire.Announced(), None),
    ):
        denied(client.ask(request, fd), "killed broker")
    client.close()
    os.close(evil)
    assert victim("reads('x')") == b"hello"


def test_who_did_not_say_that_it_announces_does_not(own_runtime: Runtime, victim: Peer) -> None:
    record = victim(RECORD.format("a.number"))
    with stopped(victim):
        own_runtime.kill_broker()
        with next_broker(own_runtime), raw(own_runtime) as client:
            evil = memfd()
            denied(client.ask(wire.AnnounceRecord(record, b"self-description", 1), evil), "killed broker")
            os.close(evil)


def test_a_reader_comes_back_as_a_reader(own_runtime: Runtime, start: Start) -> None:
    """Rights beyond the record are refused, whatever is requested, and in whatever order clients come."""
    reader, starter = start(NEVER), start()
    starter("a = share('x', b'hello', sddl='D:(A;;GR;;;WD)(A;;GA;;;OW)')")
    reader("i = m.import_by_name('x', READ)")
    record, fd = reader(f"{RECORD.format('i.number')}, i.payload.fd")
    facts = wire.decode_record(record[wire.SIGNATURE :])
    assert facts.granted == 0x20000
    with stopped(reader, starter):
        own = os.open(f"/proc/{reader.pid}/fd/{fd}", os.O_RDONLY)
        own_runtime.kill_broker()
        with next_broker(own_runtime):
            client = announcer(own_runtime)
            assert isinstance(client.ask(wire.AnnounceRecord(record, b"self-description", 1), own), wire.RecordBack)
            for request in (
                wire.AnnounceReference(1, facts.payload, facts.object, False, 0x20001, False),
                wire.AnnounceReference(1, facts.payload, facts.object, True, 0x20000, False),
                wire.AnnounceHandle(4, facts.payload, facts.object, 0x1F0001, False, False),
                wire.AnnounceTicket(bytes(16), "handle", facts.payload, facts.object, 0x20001, False),
            ):
                denied(client.ask(request), "no record")
            assert (
                client.ask(wire.AnnounceReference(1, facts.payload, facts.object, False, 0x20000, False)) == wire.Done()
            )
            assert client.ask(wire.AnnounceHandle(4, facts.payload, facts.object, 0x20000, False, False)) == wire.Done()
            assert client.ask(wire.Announced()) == wire.Done()
            client.close()
        os.close(own)


def test_another_users_record_is_no_use(own_runtime: Runtime, start: Start) -> None:
    """The holder of a record is a user; a process of another user that has obtained the bytes gains nothing."""
    with system_broker(own_runtime) as first:
        owner, thief = start(), start()
        owner(SYSTEM + "a = share('x', b'hello', sddl='D:(A;;GR;;;WD)(A;;GA;;;OW)')")
        thief(BECOME + "become()\n" + SYSTEM + "i = m.import_by_name('x')")
        record = owner(RECORD.format("a.number"))
        with stopped(owner):
            first.kill()
            with next_broker(own_runtime, system=True):
                # Its own record is accepted, with an fd that may be read.
                assert thief("text(i), m.info(m.open_handle('x', READ)).granted_access") == (b"hello", 0x20000)
                refusal = thief(
                    "from extmem import wire\nfrom extmem.wire import transport\n"
                    "client = LinuxManager(RuntimeDir(Path(os.environ['EXTMEM_RUNTIME_DIR']), system=True)).client\n"
                    "sock = client._reach(start=False)\n"
                    "def ask(request, fd=None):\n"
                    "    transport.send(sock, wire.encode(request), fd)\n"
                    "    return wire.decode_reply(transport.receive(sock)[0])\n"
                    "assert ask(wire.Hello(wire.PROTOCOL_VERSION, True)).recovering\n"
                    "reply = ask(wire.AnnounceRecord(record, b'self-description', 1), i.payload.fd)\n"
                    "sock.close()\nreply.status, reply.detail",
                    record=record,
                )
                assert (
                    refusal[0] == Status.ACCESS_DENIED
                    and "is of user 0" in refusal[1]
                    and f"user {OTHER}" in refusal[1]
                )
                os.kill(owner.pid, signal.SIGCONT)
                assert owner("reads('x'), m.info(m.get_handle(a.number)).granted_access & 1") == (b"hello", 1)
                assert thief.fails("m.import_by_name('x', READ_WRITE)").is_a("AccessDeniedError")


def test_a_reader_of_another_user_that_comes_first_does_not_get_the_name(own_runtime: Runtime, start: Start) -> None:
    """It restores the object as the record has it: with the owner, the owner's name and security descriptor."""
    with system_broker(own_runtime) as first:
        owner, reader, third = start(), start(), start()
        owner(SYSTEM + "a = share('x', b'hello', sddl='D:(A;;GR;;;WD)(A;;GA;;;OW)')")
        reader(BECOME + "become()\n" + SYSTEM + "i = m.import_by_name('x')")
        third(BECOME + f"become({OTHER + 1})\n" + SYSTEM)
        with stopped(owner):
            first.kill()
            with next_broker(own_runtime, system=True):
                assert reader("text(m.import_by_name('x'))") == b"hello"
                assert third("text(m.import_by_name('x'))") == b"hello"
                os.kill(owner.pid, signal.SIGCONT)
                for peer in (reader, third):
                    assert peer.fails("m.import_by_name('x', READ_WRITE)").is_a("AccessDeniedError")
                    assert peer.fails("m.open_handle('x', 0x40000)").is_a("AccessDeniedError")
                assert owner("i = m.import_by_name('x', READ_WRITE)\nwrite(i, b'HELLO')\nreads('x')") == b"HELLO"


def test_a_name_that_was_given_up_and_taken_by_another_is_the_later_ones(own_runtime: Runtime, start: Start) -> None:
    """A client with the record and the file of an object that has ended does not get its name by coming first."""
    early, late = start(NEVER), start()
    late("m.kmt_alive(1)")
    early("a = share('x', b'early')")
    record, fd = early(f"{RECORD.format('a.number')}, os.dup(list(m.client.state.payloads.values())[0].fds[2][0].fd)")
    early("m.release(a.number)")
    late("b = share('X', b'later')")
    with stopped(late):
        own = os.open(f"/proc/{early.pid}/fd/{fd}", os.O_RDONLY)
        own_runtime.kill_broker()
        with next_broker(own_runtime):
            facts = wire.decode_record(record[wire.SIGNATURE :])
            client = announcer(own_runtime)
            assert client.ask(wire.AnnounceRecord(record, b"self-description", 1), own) == wire.RecordBack(
                facts.payload, 0, True
            )
            os.kill(late.pid, signal.SIGCONT)
            assert late("reads('x')") == b"later"
            assert early("reads('x')") == b"later"
            client.close()
        os.close(own)


DRIVER = """
from extmem.sharing.kinds import Backing
def driver(name, sddl):
    fd = os.open('/dev/zero', os.O_RDWR)
    try:
        how = dict(share=Share.NT, name=name, access=ALL, sddl=sddl, inherit=True, identity=7)
        how |= dict(backing=Backing.DRIVER_FD)
        return m.export([fd], b'', **how)
    finally: os.close(fd)
"""


def test_a_drivers_payload_waits_for_its_own_user(own_runtime: Runtime, start: Start) -> None:
    """Inodes do not distinguish a driver's files: the record of the own user, or of root, counts."""
    with system_broker(own_runtime) as first:
        owner, writer = start(), start()
        owner(DRIVER + BECOME + "become()\n" + SYSTEM + "a = driver('g', 'D:(A;;GA;;;WD)')")
        writer(BECOME + f"become({OTHER + 1})\n" + SYSTEM + "i = m.import_by_name('g')")
        with stopped(owner):
            first.kill()
            with next_broker(own_runtime, system=True):
                writer.start("m.info(m.open_handle('g', READ)).name")
                assert not writer.connection.poll(0.5), "its memory is not taken before the owner's is"
                os.kill(owner.pid, signal.SIGCONT)
                assert owner("m.import_by_name('g').payload is not None")
                assert writer.finish().endswith("g")
                assert writer("m.client.state.lost_references") == {}


def test_a_drivers_payload_whose_user_does_not_come_is_gone(own_runtime: Runtime, start: Start) -> None:
    with system_broker(own_runtime) as first:
        owner, writer = start(), start()
        owner(DRIVER + BECOME + "become()\n" + SYSTEM + "a = driver('g', 'D:(A;;GA;;;WD)')")
        writer(BECOME + f"become({OTHER + 1})\n" + SYSTEM + "i = m.import_by_name('g')\nk = share('k', b'kept.')")
        owner.kill()
        first.kill()
        with next_broker(own_runtime, system=True, window=1.0):
            assert writer("reads('k')") == b"kept."
            error = writer.fails("m.offer(reference=i.number)")
            assert error.is_a("PeerGoneError") and f"user {OTHER}" in error.message
            assert writer("m.release(i.number)\nlen(m.snapshot())") == 1


def test_a_broker_that_finds_no_journal_after_a_killed_one_waits_all_the_same(
    own_runtime: Runtime, victim: Peer, start: Start
) -> None:
    seeker = start()
    seeker("m.kmt_alive(1)")
    with stopped(victim):
        own_runtime.kill_broker()
        (own_runtime.path / JOURNAL).unlink()
        seeker.start("reads('x')")
        assert not seeker.connection.poll(0.5)
    assert seeker.finish() == b"hello"


def test_a_broker_killed_in_the_window_is_followed_by_one_that_waits_too(
    own_runtime: Runtime, victim: Peer, start: Start
) -> None:
    seeker = start()
    seeker("m.kmt_alive(1)")
    with stopped(victim):
        own_runtime.kill_broker()
        for _ in range(3):
            wait_until(lambda: own_runtime.serving(), "the next broker")
            own_runtime.kill_broker(required=False)
        seeker.start("reads('x')")
        assert not seeker.connection.poll(0.3)
    assert seeker.finish() == b"hello"
