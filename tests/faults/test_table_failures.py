"""Payloads whose table of arrays lies: refused before anything is mapped, with the name of the entry.

The exporter is another process. What it writes after the export is not used.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem.errors import DescriptorError
from extmem.manager import manager
from extmem.sharing.kinds import PageRole
from extmem.testing import leaks
from extmem.testing.children import Peer

HOSTILE = """
import os
import extmem
from extmem.api.memory_kinds import memory_of
from extmem.core import shared_devices, sharing_arrays
from extmem.devices.host import late
from extmem.handles import Access
from extmem.owning import OwnedFd, Uses
from extmem.sharing.kinds import PageRole

create = late.page_system.create_page_file

def lie(name, data, size, sealed=True, page=0, control=None):
    # Share a payload whose table has these bytes, in a page of this size; and a control page of these bytes. On Windows
    # a page is as large as its bytes, without a control page.
    def create_page_file(first_bytes, *, final, sddl=None):
        length = page if final else 0 if control is None else len(control)
        if not length:
            return create(first_bytes, final=final and sealed, sddl=sddl)
        if not final:
            first_bytes = control
        import fcntl
        fd = os.memfd_create('extmem', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, length)
        os.pwrite(fd, first_bytes, 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return OwnedFd(fd)

    late.page_system.create_page_file = create_page_file
    device = shared_devices.device_for(None)
    how = sharing_arrays.how(name, Access.READ_WRITE)
    with Uses(device) as uses:
        made = sharing_arrays.allocate(device, uses, size, how, pages={PageRole.TABLE: data})
        memory = memory_of(*made.memory)
        sharing_arrays.publish(made)
    return memory
"""
ROW = ["w", "float32", [4], 0, 16]
LIES: dict[str, tuple[list[list[Any]], int, str]] = {
    "a range beyond the payload": ([["w", "float32", [4], 256, 16]], 256 + 15, "'w' is at bytes 256 to 272 of a payl"),
    "a terabyte": ([["w", "uint8", [1 << 40], 0, 1 << 40]], 4096, "'w' is at bytes 0 to 1099511627776 of a payload"),
    "offset and size overflow": ([["w", "uint8", [8], (1 << 64) - 4, 8]], 4096, "'w' is at bytes 18446744073709551612"),
    "a negative offset": ([["w", "uint8", [8], -8, 8]], 4096, "'w' is at bytes -8"),
    "a partial overlap": ([ROW, ["v", "float32", [4], 8, 16]], 24, "'v' is at bytes 8 to 24 and shares a part of them"),
    "bytes of no array": ([ROW, ["v", "float32", [4], 512, 16]], 528, "496 bytes before entry 'v' that belong to no"),
    "a type that does not divide": ([["w", "float32", [4], 0, 15]], 15, "'w' has 15 bytes, and its shape"),
    "an unknown type": ([["w", "float33", [4], 0, 16]], 16, "'w': 'float33' is not the text of an element type"),
    "Python objects": ([["w", "object", [2], 0, 16]], 16, "'w': 'object' is not"),
    "the same name twice": ([ROW, ["w", "float32", [4], 256, 16]], 272, "two entries have the name 'w'"),
}


def framed(body: bytes) -> bytes:
    return struct.pack("<8sII", b"EXTMTBL\x01", len(body), zlib.crc32(body)) + body


def table(entries: list[list[Any]]) -> bytes:
    return framed(json.dumps({"align": 256, "entries": entries}, separators=(",", ":")).encode())


@pytest.fixture(scope="module")
def hostile() -> Iterator[Peer]:
    with Peer() as peer:
        peer(HOSTILE)
        yield peer


@contextlib.contextmanager
def lying(hostile: Peer, data: bytes, size: int, **more: Any) -> Iterator[Any]:
    """Open what another process has shared with this table."""
    hostile("memory = lie('lying table', data, size, **more)", data=data, size=size, more=more)
    try:
        with extmem.open("lying table") as opened:
            yield opened
    finally:
        hostile("memory.close()")


def refused(opened: Any, says: str) -> None:
    """Check that the table is refused at each use, whose doing it is, and that nothing was mapped for it."""
    with leaks.no_leaks(objects=False):
        before = leaks.mappings()
        for use in (
            lambda: opened["w"],
            lambda: opened.numpy(),
            lambda: list(opened),
            lambda: opened.tree(),
            lambda: opened.metadata,
        ):
            with pytest.raises(DescriptorError) as caught:
                use()
            text = str(caught.value)
            assert says in text and "Its exporter wrote it: export the payload anew" in text, text
        del caught
        assert leaks.mappings() == before


@pytest.mark.parametrize("lie", LIES)
def test_a_table_that_lies_is_refused_before_anything_is_mapped(hostile: Peer, lie: str) -> None:
    entries, size, says = LIES[lie]
    with lying(hostile, table(entries), size) as opened:
        refused(opened, says)


def test_the_twin_of_the_lies_is_read(hostile: Peer) -> None:
    data = table([ROW, ["v", "float32", [4], 256, 16], ["tied", "int32", [2, 2], 0, 16]])
    with lying(hostile, data, 272) as opened:
        assert list(opened) == ["w", "v", "tied"] and opened["tied"].read().tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"not a table" + bytes(100), "begins with 6e 6f 74"),
        (struct.pack("<8sII", b"EXTMTBL\x01", 1 << 20, 0), "claims 1048576 bytes"),
        (struct.pack("<8sII", b"EXTMTBL\x01", (1 << 32) - 1, 0), "claims 4294967295 bytes"),
        (table([ROW])[:-3] + b"}}}", "checksum"),
        (framed(b"[" * 100_000), "not readable"),
        (framed(b'{"align":3,"entries":[]}'), "alignment is 3"),
        (framed(b'{"align":256,"entries":[["w","uint8",[1],0,1]],"tree":{"d":{"x":5}}}'), "refers to entry 5 of 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bytes_that_are_no_table_are_refused(hostile: Peer, data: bytes, says: str) -> None:
    with lying(hostile, data, 1) as opened:
        refused(opened, says)


def test_a_terabyte_that_is_claimed_costs_no_memory(hostile: Peer) -> None:
    data = table([["w", "uint8", [1 << 40], 0, 1 << 40]])
    with lying(hostile, data, 4096) as opened:
        assert most_memory(opened, "1099511627776 of a payload of 4096 bytes") < 1 << 20


def most_memory(opened: Any, says: str) -> int:
    """Return the bytes that the refusal of a table takes at most."""
    tracemalloc.start()
    try:
        with pytest.raises(DescriptorError, match=says):
            opened["w"]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.linux_only("a memory file can be larger than memory")
def test_a_table_page_that_is_too_large_is_not_read(hostile: Peer) -> None:
    data = table([ROW, ["v", "float32", [4], 256, 16]])
    with lying(hostile, data, 272, sealed=False, page=1 << 40) as opened:
        assert most_memory(opened, "has 1099511623680 bytes, and at most 67174400 are read") < 1 << 20


@pytest.mark.linux_only("Windows counts no changes")
@pytest.mark.parametrize("size", [100, 4096])
def test_a_control_page_that_is_no_page_is_refused(hostile: Peer, size: int) -> None:
    with lying(hostile, table([ROW]), 16, control=bytes(size)) as opened:
        for use in (
            lambda: opened.generation,
            lambda: opened.torn,
            lambda: opened.wait(timeout=0),
            lambda: opened.stable(),
            lambda: opened.update(),
        ):
            with pytest.raises(DescriptorError, match="the page CONTROL of the payload is too small"):
                use()
        assert opened["w"].read().tolist() == [0] * 4
        assert manager().status() is not None
    with lying(hostile, table([ROW]), 16, control=bytes(8192)) as opened:
        with opened.update(timeout=10):
            pass
        assert opened.generation == 2


@pytest.mark.linux_only("Windows counts no changes")
@pytest.mark.parametrize("octet", [b"\xff", b"\x55", b"\xfe"])
def test_a_control_page_of_any_bytes_ends_no_process(hostile: Peer, octet: bytes) -> None:
    """It makes a reader wait for its timeout, or accept contents that the writer could have falsified as well."""
    with lying(hostile, table([ROW]), 16, control=octet * 8192) as opened:
        for use in (
            lambda: (opened.generation, opened["w"].generation, opened.torn),
            lambda: opened.wait(after=0, timeout=0),
            lambda: opened.stable(timeout=0.01).__enter__(),
            lambda: opened.update(timeout=0.01).__enter__(),
        ):
            with contextlib.suppress(extmem.ExtmemError):
                use()
        assert opened["w"].read().tolist() == [0] * 4
    with extmem.share(b"the broker", "lying control") as memory, memory.update(timeout=10):
        pass


@pytest.mark.slow("a table of more than a million entries")
def test_more_entries_than_the_limit(hostile: Peer) -> None:
    body = b'{"align":256,"entries":[' + b",".join([b'["w","uint8",[0],0,0]'] * ((1 << 20) + 1)) + b"]}"
    with lying(hostile, framed(body), 4096) as opened:
        with pytest.raises(DescriptorError, match="1048577 entries, and 1048576 is the limit"):
            opened["w"]


WRITE = """
def written(fd, at, data):
    import os
    try:
        return os.pwrite(fd, data, at)
    except OSError as error:
        return error.strerror
"""


@pytest.mark.linux_only("Windows has no seals")
def test_nobody_changes_a_table_after_its_export(hostile: Peer) -> None:
    """Neither its exporter nor a reader; a table that was never sealed is read once, and only the copy is used."""
    honest = table([["w", "float32", [4], 0, 16], ["v", "float32", [4], 256, 16]])
    hostile(WRITE)
    for sealed in (True, False):
        with lying(hostile, honest, 272, sealed=sealed) as opened, extmem.open("lying table") as again:
            assert list(opened) == ["w", "v"]
            fd, changed = "memory.record.pages.file(PageRole.TABLE).fd", honest.replace(b'"w"', b'"x"')
            found = hostile(f"written({fd}, 0, data)", data=changed)
            assert found == ("Operation not permitted" if sealed else len(changed))
            assert opened["w"].shape == again["w"].shape == (4,)
            with pytest.raises(OSError, match="Operation not permitted|Bad file descriptor"):
                os.pwrite(opened.record.pages.file(PageRole.TABLE).fd, changed, 0)
