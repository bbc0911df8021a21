"""The wire format: each message is decoded as it was encoded; any other bytes raise PeerProtocolError, nothing else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extmem import wire
from extmem.errors import PeerProtocolError
from extmem.objects import Part, PayloadRow, Share

TICKET = bytes(range(16))
REQUESTS: list[wire.Request] = [
    wire.Hello(3, True, TICKET, 7, 8, 12),
    wire.Export(1, 1, 1, b"self-description", 1, "frames", 0x80000001, "D:(A;;GA;;;WD)", True, False, 7, (1, 2)),
    wire.Export(1, 1, 1, b"", 2, None, 0, None, False, True),
    wire.Export(1, 1, 1, b"", 1, "frames", 1, None, False, False, 0, (), True, 3, 60_000),
    wire.ImportName("naïve ☃ name", 0x02000000, 1),
    wire.ImportHandle(4, 1),
    wire.ImportKmt(0x40000042, 1),
    wire.Release(1, 2**62),
    wire.GetHandle(1),
    wire.OpenHandle("x", 1, True),
    wire.CloseHandle(8, 0),
    wire.Duplicate(8, None, True, False, True, True, 5),
    wire.Duplicate(8, 1, True, False, True, False),
    wire.SameObject(4, 8),
    wire.QueryHandle(4),
    wire.SetFlags(4, 3, 1),
    wire.KmtAlive(2),
    wire.Offer(reference=3),
    wire.Claim(TICKET),
    wire.BindOffer(TICKET),
    wire.Withdraw(TICKET),
    wire.Snapshot(7),
    wire.GetStatus(),
    wire.Stop(True),
    wire.Inherit((4, 8)),
    wire.Inherit(),
    wire.Hold(4),
    wire.ListHandles(12),
    wire.Follow(bytes(32)),
    wire.AttachFds(),
    wire.FetchFds(5, 2, 253),
    wire.FetchFds(5, 1, 0),
    wire.AwaitName("later", 0x02000000, 1),
    wire.EndWait(9),
    wire.Forget("kept"),
    wire.IsSuperseded(3),
    wire.Lease(3),
    wire.Freeze((3, 4)),
    wire.WatchNames(),
    wire.AnnounceRecord(b"record", b"d", 1, True),
    wire.AnnounceReference(1, 5, 6, True, 0xF0001, True),
    wire.AnnounceHandle(4, 5, 6, 0x20001, True, False),
    wire.AnnounceTicket(TICKET, "handle", 5, 6, 1, True),
    wire.AnnounceTicket(TICKET, "kmt", 5, 0, 1, False),
    wire.AnnounceClaimed(TICKET),
    wire.Announced(),
]
REPLIES: list[wire.Reply] = [
    wire.Welcome(2, 2**61, 4711, True, TICKET, True, True, 3, 4, True, 60),
    wire.Done(),
    wire.Value(2**63 - 1),
    wire.Exported(1, 5, 6, 0xF0001, 0, False, b"d", b"record"),
    wire.Imported(300, 1, b"facts"),
    wire.Handle(4, 5, 6, 1, True, False, 2, 1, b"d", b"record"),
    wire.HandleState(True, False, 1, 6, "", "DxgkSharedResource", 1, 3),
    wire.Ticket(TICKET),
    wire.Kmt(0xC0000002),
    wire.Handles((4, 8, 12), 12),
    wire.SnapshotFile(4096, 2),
    wire.BrokerState(1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    wire.Channel(),
    wire.RecordBack(5, 0, True),
    wire.Fds(7),
    wire.Attached(),
    wire.Awaited(9),
    wire.NamesPage(),
    wire.Writers((5, 0)),
    wire.Refusal(0xC0000034, "No live object is named 'x'."),
    wire.Fault("you broke the format"),
]


@pytest.mark.parametrize("message", REQUESTS, ids=lambda m: type(m).__name__)
def test_a_request_comes_back_as_it_was(message: wire.Request) -> None:
    assert wire.decode_request(wire.encode(message)) == message


@pytest.mark.parametrize("message", REPLIES, ids=lambda m: type(m).__name__)
def test_a_reply_comes_back_as_it_was(message: wire.Reply) -> None:
    assert wire.decode_reply(wire.encode(message)) == message


def test_every_kind_of_message_is_tried_here() -> None:
    assert {type(m) for m in REQUESTS} == set(wire.Request.__args__)  # type: ignore[attr-defined]  # a union's members
    assert {type(m) for m in REPLIES} == set(wire.Reply.__args__)  # type: ignore[attr-defined]


def test_numbers_are_unique_and_requests_and_replies_do_not_meet() -> None:
    tags = [msgspec.msgpack.decode(wire.encode(m))[0] for m in {type(m): m for m in [*REQUESTS, *REPLIES]}.values()]
    assert len(tags) == len(set(tags))
    assert all(msgspec.msgpack.decode(wire.encode(m))[0] < 64 for m in REQUESTS)
    assert all(64 <= msgspec.msgpack.decode(wire.encode(m))[0] < 128 for m in REPLIES)


@pytest.mark.parametrize("message", [*REQUESTS, *REPLIES], ids=lambda m: type(m).__name__)
def test_a_cut_or_lengthened_message_is_refused_or_another_valid_one(message: wire.Request | wire.Reply) -> None:
    data = wire.encode(message)
    decode = wire.decode_request if message in REQUESTS else wire.decode_reply
    for end in range(len(data)):
        with pytest.raises(PeerProtocolError):
            decode(data[:end])
    with pytest.raises(PeerProtocolError):
        decode(data + b"\0")


@pytest.mark.parametrize("message", REQUESTS, ids=lambda m: type(m).__name__)
def test_a_request_is_no_reply(message: wire.Request) -> None:
    with pytest.raises(PeerProtocolError):
        wire.decode_reply(wire.encode(message))


@pytest.mark.parametrize(
    "message",
    [
        wire.ImportName("x" * 601, 0, 1),
        wire.ImportName("x", 1 << 32, 1),
        wire.ImportName("x", -1, 1),
        wire.Export(1, 1, 1, b"d" * 4097, 1, None, 0, None, False, False),
        wire.Export(1, 256, 1, b"", 1, None, 0, None, False, False),
        wire.Export(1, 1, 1, b"", 1, None, 0, "D" * 4201, False, False),
        wire.Claim(b"short"),
        wire.Claim(bytes(17)),
        wire.Release(-1),
        wire.Release(1 << 63),
        wire.Inherit(tuple(range(1025))),
        wire.AnnounceRecord(b"r" * 7201, b"", 1),
        wire.Hello(2, False, bytes(17)),
    ],
    ids=repr,
)
def test_values_beyond_their_bounds_are_refused(message: wire.Request) -> None:
    with pytest.raises(PeerProtocolError):
        wire.decode_request(wire.encode(message))


LONGEST_FACTS = wire.ImportFacts(
    2,
    2**62,
    2**62,
    2**32 - 1,
    2**32 - 1,
    True,
    255,
    255,
    4096,
    (255,) * 8,
    "\U00010000" * 600,
    b"d" * 4096,
    b"r" * 7200,
    2**62,
    2**62,
)


LONGEST_RECORD = wire.HolderRecord(
    2**62, 2**62, "\U00010000" * 600, 2**32 - 1, "D" * 4200, True, 2**62, 2**32 - 1, 2**32 - 1, True, 255, 255,
    4096, (255,) * 8, 255, 2**32 - 1, True, 2**62, 2**32 - 1, bytes(16), bytes(16),
    2**62, 2**62, 255, 2**32 - 1,
)  # fmt: skip


def test_the_longest_record_fits_with_its_signature() -> None:
    assert len(wire.encode(LONGEST_RECORD)) + wire.SIGNATURE <= 7_200


def test_the_longest_facts_come_back_as_they_were() -> None:
    reply = wire.decode_reply(wire.encode(wire.Imported(1, 0, wire.encode(LONGEST_FACTS))))
    assert isinstance(reply, wire.Imported) and wire.decode_facts(reply.facts) == LONGEST_FACTS


def test_the_longest_legal_messages_fit_into_a_packet() -> None:
    longest = [
        wire.Export(
            1,
            1,
            1,
            b"d" * 4096,
            1,
            "\U00010000" * 600,
            0,
            "D" * 4200,
            False,
            False,
            2**62,
            (2,) * 8,
            True,
            3,
            2**32 - 1,
        ),
        wire.Imported(2**62, 253, wire.encode(LONGEST_FACTS)),
        wire.Handle(2**62, 2**62, 2**62, 1, True, True, 2, 4096, b"d" * 4096, b"r" * 7200),
        wire.Handles(tuple([2**62] * 1024)),
        wire.Refusal(0xC0000034, "\U00010000" * 3000),
        wire.AnnounceRecord(b"r" * 7200, b"d" * 4096, 1, True),
    ]
    assert all(len(wire.encode(message)) <= wire.MAX_MESSAGE for message in longest)


@pytest.mark.parametrize("message", [*REQUESTS, *REPLIES], ids=lambda m: type(m).__name__)
def test_fds_of_says_how_many_descriptors_belong_to_it(message: wire.Request | wire.Reply) -> None:
    carriers = (
        wire.Export, wire.AnnounceRecord, wire.BindOffer, wire.SnapshotFile, wire.Channel, wire.Imported, wire.Handle,
        wire.Awaited, wire.NamesPage,
    )  # fmt: skip
    count = int(isinstance(message, carriers))
    if isinstance(message, wire.Duplicate):
        count = message.into
    if isinstance(message, wire.AnnounceTicket):
        count = message.bound
    if isinstance(message, wire.AttachFds):
        count = wire.MAX_FDS
    if isinstance(message, wire.Fds):
        count = message.count
    assert wire.fds_of(message) == count


@pytest.mark.parametrize(
    ("handles", "first", "last"), [(1, 1, 1), (252, 252, 252), (253, 253, 253), (254, 253, 1), (4096, 253, 48)]
)
def test_many_handles_go_in_parts(handles: int, first: int, last: int) -> None:
    """A request brings the last ones, after `AttachFds`; a reply the first ones, before `FetchFds`."""
    assert wire.fds_of(wire.Export(1, 1, handles, b"", 1, None, 0, None, False, False)) == last
    assert wire.fds_of(wire.AnnounceRecord(b"", b"", handles)) == last
    assert wire.fds_of(wire.Handle(4, 5, 6, 1, True, False, 2, handles, b"", b"")) == first
    assert (handles - last) % wire.fds_of(wire.AttachFds()) == 0


def test_an_import_of_what_the_client_has_already_carries_no_descriptor() -> None:
    assert wire.fds_of(wire.Imported(1, 0, b"")) == 0
    assert wire.fds_of(wire.Handle(4, 5, 6, 1, True, False, 0, 300, b"d", b"record")) == 0


@given(st.integers(0, 2**63 - 1), st.integers(0, wire.MAX_FDS), st.binary(max_size=1000))
def test_head_number_count_and_facts_are_the_encoded_import(reference: int, fds: int, facts: bytes) -> None:
    spliced = wire.IMPORTED_HEAD + wire.encode(reference) + wire.encode(fds) + wire.encode(facts)
    assert spliced == wire.encode(wire.Imported(reference, fds, facts))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    for decode in (wire.decode_request, wire.decode_reply, wire.decode_facts, wire.decode_record, wire.decode_parts):
        try:
            decode(data)
        except PeerProtocolError:
            continue


@given(st.sampled_from([*REQUESTS, *REPLIES]), st.data())
def test_a_wounded_message_is_a_message_or_a_protocol_error(
    message: wire.Request | wire.Reply, data: st.DataObject
) -> None:
    text = bytearray(wire.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    for decode in (wire.decode_request, wire.decode_reply):
        try:
            decode(bytes(text))
        except PeerProtocolError:
            continue


def test_records_and_snapshots_come_back_as_they_were() -> None:
    record = LONGEST_RECORD
    assert wire.decode_record(wire.encode(record)) == record
    parts = [Part(5, PayloadRow(5, Share.KMT, 0x40000002, b"d", (), ()))]
    assert wire.decode_parts(wire.encode(parts)) == parts


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(PeerProtocolError):
        wire.decode_request(b"\x91" * wire.MAX_MESSAGE)
