"""Invariant: whatever bytes and fds a client sends, the broker does not end, sends defined replies or closes the
connection, keeps nothing of the client after its end, and the state of another client does not change.

Run `python -m fuzz.fuzz_wire --iterations 100000`. Runs with the same seed are equal except for random ids of
the broker.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from extmem import wire
from extmem.errors import PeerGoneError
from extmem.manager.linux.manager import LinuxManager
from extmem.objects import Share, Status
from extmem.sharing import timeline_page
from extmem.sharing.kinds import Backing
from extmem.wire import transport
from extmem.wire.runtime_dir import RuntimeDir

GOOD_NAMES = ("mine", "other", "x")
NAMES = ("mine", "MINE", "other", "Local\\x", "Global\\x", "", "\\", "a\0b", "x" * 300, "é☃", "\U0001f600" * 150)
SDDLS = (None, "D:", "D:(A;;GA;;;WD)", "D:(A;;GR;;;OW)", "nonsense", "D:" + "(A;;GA;;;WD)" * 60)
MASKS = (0, 1, 0x80000000, 0x80000001, 0x10000000, 0x02000000, 0xFFFFFFFF)
STATUSES = {int(status) for status in Status}
KINDS = (1, 1, 1, 2, 2, 3, 0, 255)
DEADLINE = 20.0


class Fuzzer:
    """A series of hostile clients, with the numbers that they got in replies."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.directory = directory
        self.rng = rng
        self.numbers = [0, 1, 2, 3, 4, 8, 12, 5, 0x40000002, 2**31, 2**32, 2**53, 2**63 - 1]
        self.tickets = [bytes(16), os.urandom(16)]
        self.records = [b"", b"nonsense"]
        self.secrets = [b"", os.urandom(16)]
        self.seen: Counter[str] = Counter()
        self.sock: socket.socket | None = None
        self.greeted = False
        self.files = [os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING) for _ in range(5)]
        for fd in self.files[:4]:
            os.ftruncate(fd, 4096)
        for fd in self.files[:3]:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.events = [os.eventfd(0) for _ in range(2)]
        self.files += [*self.events, os.open("/dev/zero", os.O_RDWR), os.open(__file__, os.O_RDONLY), *os.pipe()]
        self.pipes: list[Any] = []
        """The pipes of waits and leases that are still open."""
        self.pidfds = [os.pidfd_open(os.getpid()), os.pidfd_open(os.getppid())]
        self.files += self.pidfds

    def close(self) -> None:
        self.hang_up()
        for pipe in self.pipes:
            pipe.close()
        for fd in self.files:
            os.close(fd)

    def number(self) -> int:
        if self.rng.random() < 0.005:
            return self.rng.choice((-1, 2**63))
        return self.rng.choice(self.numbers if self.flag() else self.numbers[-8:])

    def flag(self) -> bool:
        return self.rng.random() < 0.5

    def request(self) -> Any:
        """Return a well-formed request with numbers that may be valid."""
        rng, n = self.rng, self.number
        mask, ticket = rng.choice(MASKS), rng.choice(self.tickets[-3:])
        name = rng.choice(NAMES if rng.random() < 0.3 else GOOD_NAMES)
        word = rng.choice(("reference", "handle", "kmt", "nonsense"))
        makers = (
            lambda: wire.Hello(
                rng.choice((1, 3, 3)), self.flag(), rng.choice(self.secrets), n() % 9, n() & 0xFFFF, n() & 0xFFFF
            ),
            lambda: wire.Export(
                rng.choice(KINDS), rng.choice((1, 1, 1, 2, 3, 3, 0, 255)), rng.choice((1, 1, 3, 254)),
                rng.randbytes(rng.randrange(64)), rng.choice((1, 2, 1, 0, 3, 255)), rng.choice((None, name)), mask,
                rng.choice(SDDLS), self.flag(), self.flag(), n(), rng.choice(((), (), (1,), (1, 2), (3,), (7,))),
                self.flag(), rng.choice((0, 0, 1, 2, 3, 4, 255)), rng.choice((0, 1, 50, 2**32 - 1)),
            ),
            lambda: wire.AwaitName(name, mask, rng.choice(KINDS)),
            lambda: wire.EndWait(n()),
            lambda: wire.Forget(name),
            lambda: wire.IsSuperseded(n()),
            lambda: wire.WatchNames(),
            lambda: wire.Lease(n()),
            lambda: wire.ImportName(name, mask, rng.choice(KINDS)),
            lambda: wire.ImportHandle(n(), rng.choice(KINDS)),
            lambda: wire.ImportKmt(n(), rng.choice(KINDS)),
            lambda: wire.Release(n(), n()),
            lambda: wire.GetHandle(n()),
            lambda: wire.OpenHandle(name, mask, self.flag()),
            lambda: wire.CloseHandle(n(), n()),
            lambda: wire.Duplicate(
                n(), rng.choice((None, mask)), self.flag(), self.flag(), self.flag(),
                self.flag(), n(),
            ),
            lambda: wire.SameObject(n(), n()),
            lambda: wire.QueryHandle(n()),
            lambda: wire.SetFlags(n(), rng.randrange(256), rng.randrange(256)),
            lambda: wire.KmtAlive(n()),
            lambda: wire.Offer(*(n() if self.flag() else None for _ in range(3))),
            lambda: wire.Claim(ticket),
            lambda: wire.BindOffer(ticket),
            lambda: wire.Withdraw(ticket),
            lambda: wire.Snapshot(rng.choice((0, 0, 1, n()))),
            lambda: wire.GetStatus(),
            lambda: wire.Stop(False) if self.greeted else wire.GetStatus(),  # the witness is in the same process
            lambda: wire.Inherit(rng.choice((None, (), (n(), n())))),
            lambda: wire.Hold(n()),
            lambda: wire.ListHandles(n()),
            lambda: wire.AttachFds(),
            lambda: wire.FetchFds(n(), rng.randrange(4), rng.choice((0, 1, 254))),
            lambda: wire.Follow(bytes(32)) if rng.random() < 0.01 else wire.GetStatus(),
            lambda: wire.AnnounceRecord(
                self.changed(rng.choice(self.records)), rng.choice((b"", b"fuzzed", b"witness")),
                rng.choice((1, 1, 2, 254)), self.flag()
            ),
            lambda: wire.AnnounceReference(n(), n(), n(), self.flag(), mask, self.flag()),
            lambda: wire.AnnounceHandle(n(), n(), n(), mask, self.flag(), self.flag()),
            lambda: wire.AnnounceTicket(ticket, word, n(), n(), mask, self.flag()),
            lambda: wire.AnnounceClaimed(ticket),
            lambda: wire.Announced(),
        )  # fmt: skip
        if rng.random() < 0.15:  # other requests need shared payloads
            good = rng.choice((None, *GOOD_NAMES))
            share = rng.choice((1, 1, 2))
            kind, backing = rng.choice(((1, 1), (1, 1), (2, 1), (2, 3), (3, 3)))
            pages = rng.choice(((), (), (3,))) if kind == 1 else ()
            keep, milliseconds = rng.choice(((0, 0), (0, 0), (1, 0), (2, 0), (3, 1), (3, 1000)))
            return wire.Export(
                kind,
                backing,
                2 if pages else 1 if kind > 1 else rng.choice((1, 1, 3)),
                b"fuzzed",
                share,
                good if share == 1 else None,
                1 << 28,
                None,
                self.flag(),
                self.flag(),
                pages=pages,
                replace=share == 1 and good is not None and self.flag(),
                keep=keep if share == 1 and good is not None else 0,
                keep_ms=milliseconds if share == 1 and good is not None else 0,
            )
        return rng.choice(makers[rng.random() < 0.98 :])()

    def changed(self, record: bytes) -> bytes:
        """Return the record, in half of the calls with one bit changed."""
        if not record or self.flag():
            return record
        at = self.rng.randrange(len(record))
        return record[:at] + bytes([record[at] ^ 1 << self.rng.randrange(8)]) + record[at + 1 :]

    def packet(self) -> tuple[bytes, list[int]]:
        """Return the bytes and fds of a message: usually well-formed and with the right fds, sometimes changed."""
        rng = self.rng
        chance = rng.random()
        if chance < 0.03:
            return rng.randbytes(rng.choice((1, 2, 10, 100, 5_000, 17_000))), []
        request = self.request()
        data = wire.encode(request)
        good = self.pidfds if isinstance(request, wire.Duplicate | wire.BindOffer) else self.files[:3]
        if isinstance(request, wire.Export) and request.backing == Backing.HOST_EVENT:
            good = self.events
        fds = [rng.choice(self.files if rng.random() < 0.2 else good)] * wire.fds_of(request)
        if isinstance(request, wire.Export) and request.pages and len(fds) == 2:
            fds = rng.sample(self.files[:3], 2)
        if chance < 0.06:
            fds = rng.choices(self.files, k=rng.choice((0, 1, 2, 5)))
        if chance < 0.10:
            changed = bytearray(data)
            for _ in range(rng.randrange(1, 4)):
                at = rng.randrange(len(changed) + 1)
                changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
            data = bytes(changed) or b"\0"
        return data, fds

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(DEADLINE)
        sock.connect(str(RuntimeDir(self.directory).socket))
        self.sock = sock
        self.greeted = self.rng.random() < 0.95
        if self.greeted:
            resume = self.rng.choice(self.secrets) if self.rng.random() < 0.2 else b""
            hello = wire.Hello(wire.PROTOCOL_VERSION, self.flag(), resume, self.rng.randrange(30))
            self.exchange(wire.encode(hello), [])
        return sock

    def scribble(self) -> None:
        """Change what the broker reads and marks in the pages of timelines: header, table of signalers, or all."""
        rng = self.rng
        table, entries = timeline_page.TABLE, timeline_page.SIGNALERS
        start, size = rng.choice(((0, table), (table, 16 * entries), (0, timeline_page.PAGE_SIZE)))
        data = bytearray(rng.choice((bytes(size), rng.randbytes(size))))
        if start == table:  # some entries are of this process, which the broker knows
            at = 16 * rng.randrange(entries)
            data[at : at + 4] = os.getpid().to_bytes(4, "little")
        os.pwrite(rng.choice(self.files[:3]), bytes(data), start)

    def hang_up(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def step(self) -> None:
        """Send one message and check the reply."""
        if self.rng.random() < 0.05:
            self.scribble()
        if self.sock is None:
            self.connect()
        if self.sock is not None:
            self.exchange(*self.packet())
        if self.rng.random() < 0.01:
            self.hang_up()

    def exchange(self, data: bytes, fds: list[int]) -> None:
        if self.sock is None:
            return
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        try:
            self.sock.sendmsg([data], rights)
            packet = transport.receive_many(self.sock)
        except (PeerGoneError, ConnectionError):
            packet = None
        if packet is None:
            self.seen["hung up"] += 1
            self.hang_up()
            return
        reply = wire.decode_reply(packet[0])  # an undefined reply raises an error
        assert len(packet[1]) == wire.fds_of(reply), reply
        for fd in packet[1]:
            if isinstance(reply, wire.Awaited):
                self.pipes.append(fd)
            else:
                fd.close()
        while self.pipes and (len(self.pipes) > 20 or self.rng.random() < 0.05):
            self.pipes.pop(self.rng.randrange(len(self.pipes))).close()
        self.learn(reply)

    def learn(self, reply: wire.Reply) -> None:
        self.seen[type(reply).__name__] += 1
        if isinstance(reply, wire.Refusal):
            assert reply.status in STATUSES and reply.detail.rstrip().endswith((".", "…")), reply
            self.seen[Status(reply.status).name] += 1
            return
        if isinstance(reply, wire.Fault):
            assert "please report" not in reply.detail, reply
            self.hang_up()
            return
        fresh: list[int] = [value for value in msgspec_values(reply) if isinstance(value, int) and value > 0]
        self.numbers += fresh
        if isinstance(reply, wire.Ticket):
            self.tickets.append(reply.ticket)
        if isinstance(reply, wire.Welcome):
            self.secrets.append(reply.secret)
        if isinstance(reply, wire.Exported | wire.Handle) and reply.record:
            self.records.append(reply.record)
        for pool in (self.numbers, self.tickets, self.records, self.secrets):
            del pool[15 : max(15, len(pool) - 40)]


def msgspec_values(reply: wire.Reply) -> Iterator[Any]:
    for field in reply.__struct_fields__:
        yield getattr(reply, field)


class Witness:
    """Another client, whose state must not change."""

    def __init__(self, directory: Path) -> None:
        self.manager = LinuxManager(RuntimeDir(directory))
        fd = os.memfd_create("witness", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, 4096)
        os.pwrite(fd, b"untouched", 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.reference = self.manager.export(
            [fd], b"witness", share=Share.NT, name="witness", access=1 << 28, sddl=None, inherit=False
        ).number
        os.close(fd)
        self.handle = self.manager.get_handle(self.reference)
        self.manager.watch_names()
        status = self.manager.status()
        assert status is not None
        self.pid = status.pid

    def look(self) -> None:
        found = self.manager.import_by_name("Witness")
        assert os.pread(found.payload.fd, 9, 0) == b"untouched"
        found.payload.close()
        self.manager.release(found.number)
        info = self.manager.info(self.handle)
        assert info.handle_count == 1 and info.name.endswith("\\witness"), info
        status = self.manager.status()
        assert status is not None and status.pid == self.pid, "another broker runs"

    def forget(self) -> None:
        """End the keeping of what the other clients have left to the broker."""
        for row in self.manager.snapshot():
            for shared in row.objects:
                if shared.kept and shared.name is not None:
                    self.manager.forget_name(shared.name.rpartition("\\")[2])

    def left(self) -> dict[str, int]:
        """Return what the other clients have left behind."""
        rows = self.manager.snapshot()
        return {
            "payloads": len(rows) - 1,
            "holders": sum(len(row.holders) for row in rows) - 1,
            "fds": len(os.listdir(f"/proc/{self.pid}/fd")),
        }


@contextmanager
def private_broker() -> Iterator[Path]:
    """Make a runtime directory; end its broker after the block."""
    with tempfile.TemporaryDirectory(prefix="extmem-fuzz-", dir="/tmp") as place:
        try:
            yield Path(place)
        finally:
            LinuxManager(RuntimeDir(Path(place))).stop(force=True)


def main(iterations: int, seed: int = 1) -> dict[str, Any]:
    """Run the fuzzer. Return the counts. Errors: AssertionError, or that of a decoder, for a broken invariant."""
    rng = random.Random(seed)
    started = time.monotonic()
    with private_broker() as directory:
        witness = Witness(directory)
        before = witness.left()
        mine = len(os.listdir("/proc/self/fd"))
        fuzzer = Fuzzer(directory, rng)
        try:
            for number in range(iterations):
                fuzzer.step()
                if number % 500 == 0:
                    witness.look()
        finally:
            fuzzer.close()
        witness.look()
        witness.forget()
        deadline = time.monotonic() + DEADLINE
        while (left := witness.left()) != before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == before, f"left behind: {left}, before: {before}"
        assert len(os.listdir("/proc/self/fd")) == mine, "this process has fds left"
        log = RuntimeDir(directory).log.read_text(encoding="utf-8")
        assert not log, log
        status = witness.manager.status()
        witness.manager.disconnect()
    seconds = time.monotonic() - started
    return {
        "iterations": iterations,
        "seed": seed,
        "seconds": round(seconds, 1),
        "resident_mib": round(status.resident / (1 << 20), 1) if status is not None else 0,
        "left": {key: left[key] - before[key] for key in left},
        "replies": dict(fuzzer.seen.most_common()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(main(options.iterations, options.seed)))
    sys.exit(0)
