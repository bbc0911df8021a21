"""How live payloads are shown, from the object manager's own rows."""

from __future__ import annotations

import io
import os
import random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from extmem import vk
from extmem.cli._payloads import (
    access_in_words,
    describe_kind,
    describe_payload,
    payload_table,
    process_name,
    short_name,
)
from extmem.manager import start_time
from extmem.objects import GENERIC_ALL, MAXIMUM_ALLOWED, READ_CONTROL, PayloadRow, Share, Token
from extmem.sharing.descriptor import ArrayInfo, Descriptor, ImageInfo
from extmem.sharing.descriptor.sync import SyncDescriptor
from extmem.sharing.kinds import PageRole
from tests.described_manager import DescribedManager


def _array(pid: int) -> bytes:
    array = ArrayInfo((2, 3), "float32", (12, 4))
    return Descriptor(handle_types=2, allocation_size=64, payload_size=24, array=array, owner_pid=pid).encode()


def _rows(share: Share, name: str | None = None) -> list[PayloadRow]:
    """Return the row of a payload that this process exported and process 1 imported, which has a handle if possible."""
    model = DescribedManager(random=random.Random(1).randrange)
    mine, other = (model.attach(Token(0, 0, frozenset()), pid) for pid in (os.getpid(), 1))
    made = model.export(
        mine, ((1, 2),), _array(os.getpid()), share=share, name=name, access=GENERIC_ALL, sddl=None, inherit=False
    )
    if share == Share.KMT:
        assert made.kmt is not None
        model.import_by_kmt(other, made.kmt)
    elif name is not None:
        model.import_by_name(other, name, MAXIMUM_ALLOWED)
        model.open_handle(other, name, READ_CONTROL, False)
    return model.snapshot()


def test_lent_memory_tells_who_lends_it_and_how_much() -> None:
    lent = Descriptor(
        handle_types=2,
        allocation_size=6 << 21,
        payload_size=24,
        payload_offset=512,
        made_by_vulkan=False,
        producer="cuda-vmm",
        parts=((3, 1 << 22),),
        pages=(PageRole.LIFELINE,),
        owner_pid=os.getpid(),
        owner_start_time=start_time(os.getpid()),
    )
    (row,) = _rows(Share.NT, "Frames")
    assert describe_payload(row)["lent"] is None
    described = describe_payload(replace(row, descriptor=lent.encode()))
    assert described["lent"] == {
        "pid": os.getpid(),
        "process": process_name(os.getpid()),
        "running": True,
        "bytes": 6 << 21,
        "allocations": 3,
    }
    ended = describe_payload(replace(row, descriptor=msgspec.structs.replace(lent, owner_start_time=1).encode()))
    assert (ended["lent"]["running"], ended["lent"]["process"]) == (False, "")
    stream = io.StringIO()
    payload_table([described, ended], stream=stream)
    assert "lent by" in stream.getvalue() and "which has ended" in " ".join(stream.getvalue().split())


def test_a_named_array_with_all_that_is_held_of_it() -> None:
    (described,) = (describe_payload(row) for row in _rows(Share.NT, "Frames"))
    assert described["names"] == ["Frames"]
    assert described["paths"] == ["\\Sessions\\1\\BaseNamedObjects\\Frames"]
    assert (described["size"], described["allocation_size"]) == (24, 64)
    assert described["kind"] == {"type": "array", "shape": [2, 3], "dtype": "float32", "strides": [12, 4]}
    assert (described["share"], described["kmt"]) == ("NT", None)
    assert (described["object_kind"], described["handle_count"]) == ("memory", 1)
    other, mine = described["holders"]
    assert (mine["pid"], mine["exporter"], mine["memory_objects"], mine["handles"]) == (os.getpid(), True, 1, [])
    assert (other["pid"], other["exporter"], other["memory_objects"]) == (1, False, 1)
    assert other["handles"] == [{"value": 4, "access": 0x20000, "rights": "read"}]


def test_the_table_says_the_same_in_words() -> None:
    stream = io.StringIO()
    payload_table([describe_payload(row) for row in _rows(Share.NT, "Frames")], stream=stream)
    drawn = stream.getvalue()
    for part in (
        "Frames",
        "memory",
        "24 bytes",
        "array 2 x 3 float32",
        "NT",
        "exporter",
        "importer",
        "handle 0x4 read",
    ):
        assert part in drawn, drawn


def test_semaphores_and_fences_say_what_they_are_and_who_may_signal() -> None:
    model = DescribedManager(random=random.Random(1).randrange)
    mine, other = (model.attach(Token(0, 0, frozenset()), pid) for pid in (os.getpid(), 1))
    for number, (kind, timeline) in enumerate([(2, True), (2, False), (3, False)]):
        text = SyncDescriptor(object_kind=kind, handle_types=2, timeline=timeline, owner_pid=os.getpid()).encode()
        how: dict[str, Any] = {"share": Share.NT, "access": GENERIC_ALL, "sddl": None, "inherit": False}
        model.export(mine, ((1, number),), text, name=f"S{number}", object_kind=kind, **how)
        model.import_by_name(other, f"S{number}", 0x8000_0000, kind)
        model.import_by_name(other, f"S{number}", 0x8000_0000, kind)
    model.open_handle(other, "S0", 0x8000_0002, False)
    rows = [replace(row, counter=41) for row in sorted(model.snapshot(), key=lambda row: row.names)]
    timeline_row, binary, fence = (describe_payload(row) for row in rows)
    assert timeline_row["kind"] == {"type": "timeline", "value": 41}
    assert (binary["kind"], fence["kind"]) == ({"type": "binary"}, {"type": "fence"})
    assert (binary["object_kind"], fence["object_kind"], fence["size"]) == ("semaphore", "fence", None)
    theirs, ours = timeline_row["holders"]
    assert (theirs["rights"], theirs["handles"][0]["rights"]) == ("wait", "wait+signal")
    assert (theirs["semaphores"], binary["holders"][0]["semaphores"], fence["holders"][0]["fences"]) == (2, 2, 2)
    assert not {"memory_objects", "fences"} & theirs.keys() and "semaphores" not in fence["holders"][0]
    assert (ours["rights"], ours["exporter"]) == ("wait+signal+manage", True)
    broken = describe_payload(replace(rows[0], descriptor=b"nonsense"))
    assert broken["kind"] is None
    stream = io.StringIO()
    payload_table([timeline_row, binary, fence, broken], stream=stream)
    drawn = stream.getvalue()
    for part in (
        "timeline at 41",
        "binary",
        "fence",
        "importer (wait), 2 timelines",
        "importer (wait), 2 binary semaphores",
        "importer (wait), 2 fences",
        "importer (wait), 2 semaphores",
        "exporter",
        "handle 0x4 wait+signal",
    ):
        assert part in drawn, drawn


def test_a_kmt_share_shows_its_number() -> None:
    (described,) = (describe_payload(row) for row in _rows(Share.KMT))
    assert described["share"] == "KMT" and described["kmt"] and described["names"] == []
    stream = io.StringIO()
    payload_table([described], stream=stream)
    assert f"KMT {described['kmt']:#x}" in stream.getvalue() and "(unnamed)" in stream.getvalue()


def test_a_payload_shared_by_descriptor_alone() -> None:
    described = describe_payload(PayloadRow(7, Share(0), None, _array(1), (), ()))
    assert (described["share"], described["kmt"], described["names"]) == ("fd", None, [])


def test_a_descriptor_that_cannot_be_read_is_shown_as_unknown() -> None:
    row = PayloadRow(7, Share.NT, None, b"nonsense", (), ())
    described = describe_payload(row)
    assert described["size"] is None and described["kind"] is None
    stream = io.StringIO()
    payload_table([described], stream=stream)
    assert "no process" in stream.getvalue() and "?" in stream.getvalue()


@pytest.mark.parametrize(
    ("descriptor", "kind"),
    [
        (Descriptor(handle_types=2, allocation_size=64), {"type": "bytes"}),
        (
            Descriptor(handle_types=2, allocation_size=64, dedicated=vk.BufferCreateInfo(size=60)),
            {"type": "buffer", "size": 60},
        ),
        (Descriptor(handle_types=2, allocation_size=64, pages=(PageRole.TABLE, PageRole.CONTROL)), {"type": "arrays"}),
        (
            Descriptor(handle_types=2, allocation_size=64, image=ImageInfo(37, (4, 4, 1), 1)),
            {"type": "image", "format": "R8G8B8A8_UNORM", "extent": [4, 4, 1], "tiling": "LINEAR"},
        ),
        (
            Descriptor(
                handle_types=2,
                allocation_size=4096,
                dedicated=vk.ImageCreateInfo(
                    image_type=vk.ImageType.TYPE_2D,
                    format=vk.Format.R8G8B8A8_UNORM,
                    extent=vk.Extent3D(8, 4, 1),
                    mip_levels=1,
                    array_layers=1,
                    samples=vk.SampleCountFlagBits.COUNT_1,
                    tiling=vk.ImageTiling.OPTIMAL,
                ),
            ),
            {"type": "image", "format": "R8G8B8A8_UNORM", "extent": [8, 4, 1], "tiling": "OPTIMAL"},
        ),
    ],
    ids=["bytes", "buffer", "named arrays", "image", "dedicated image"],
)
def test_what_a_payload_holds(descriptor: Descriptor, kind: dict[str, object]) -> None:
    assert describe_kind(descriptor) == kind
    described = describe_payload(PayloadRow(7, Share.NT, None, descriptor.encode(), (), ()))
    stream = io.StringIO()
    payload_table([described], stream=stream)
    assert str(kind["type"]).replace("arrays", "named arrays") in stream.getvalue()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("\\Sessions\\1\\BaseNamedObjects\\frames", "frames"),
        ("\\Sessions\\12\\BaseNamedObjects\\a b", "a b"),
        ("\\BaseNamedObjects\\frames", "Global\\frames"),
        ("\\Device\\other", "\\Device\\other"),
    ],
)
def test_paths_become_the_names_that_programs_use(path: str, name: str) -> None:
    assert short_name(path) == name


@pytest.mark.parametrize(
    ("mask", "said"),
    [(0, "nothing"), (0x20000, "read"), (0x20001, "read+write"), (0xF0001, "read+write+manage"), (1, "write")],
)
def test_rights_in_words(mask: int, said: str) -> None:
    assert access_in_words(mask) == said


def test_processes_are_named_as_long_as_they_live() -> None:
    assert process_name(os.getpid())
    assert process_name(2**30) == ""
