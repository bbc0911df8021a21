"""Arbitrary programs of the public API end no process, and the validation layer reports nothing that was not refused.

`make test-all` runs 2,000 of them, `make soak` 100,000. A finding is printed as the smallest program that causes it.
The other tests check this test: what it draws, and that it finds planted faults.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.devices.vulkan.backend import VulkanBackend
from tests.arbitrary import checking, programs
from tests.arbitrary.__main__ import LEAST
from tests.arbitrary.hostile import BASES, FORMS
from tests.arbitrary.programs import Program
from tests.arbitrary.values import CLASS, hints
from tests.layer import collector

PROGRAMS = 2_000
FIRST = 1_000_000
FEW = 300
_SHRUNK = 5
"""The number of findings that are shrunk: each takes hundreds of runs."""
HOLE = "extmem.rules:check_bind_buffer_memory"
FOUND = ("layer: VUID-vkBindBufferMemory-", "layer: VUID-vkBindImageMemory-", "layer: VUID-VkBind")

BUFFER: Program = [
    {"call": "create_buffer", "to": "b", "with": {"info": {CLASS: "BufferCreateInfo", "size": 64, "usage": 3}}},
    {
        "call": "allocate_memory",
        "to": "m",
        "with": {
            "info": {
                CLASS: "MemoryAllocateInfo",
                "allocation_size": {"of": "b", "what": "size", "plus": 4096},
                "memory_type_index": {"of": "b", "what": "type", "plus": 0},
            }
        },
    },
]


def bound(offset: int) -> Program:
    """A buffer that is bound, and filled."""
    bind = {"buffer": {"ref": "b"}, "memory": {"ref": "m"}, "offset": offset}
    fill = {"call": "fill_buffer", "with": {"buffer": {"ref": "b"}, "word": 7}}
    return [*BUFFER, {"call": "bind_buffer_memory", "with": bind}, {"call": "commands", "with": {}, "do": [fill]}]


READ = int(extmem.Access.READ)
READING: Program = [
    {"call": "allocate", "to": "o", "with": {"shape": 64, "name": "arbitrary owner", "access": READ}},
    {"call": "open", "to": "m", "with": {"source": "arbitrary owner"}},
    {"call": "buffer", "to": "b", "with": {"memory": {"ref": "m"}}},
    {
        "call": "commands",
        "with": {},
        "do": [{"call": "fill_buffer", "with": {"buffer": {"ref": "b"}, "word": 7}}],
    },
]


@pytest.fixture(scope="module")
def layer(vulkan_begun: None) -> None:
    """Skip unless the layer is installed."""
    if not collector.installed():
        pytest.skip("no Khronos validation layer here")


@pytest.fixture
def runner(layer: None, vulkan_device: object) -> Iterator[checking.Runner]:
    with checking.Runner() as made:
        yield made


def findings_text(runner: checking.Runner, report: checking.Report) -> str:
    """Return a text of the findings, the first ones with their smallest programs."""
    found = list(report.findings.values())
    return "\n\n".join(
        f"{finding.sign}, {finding.count} times:\n"
        + checking.listing(checking.shrunk(runner, finding) if index < _SHRUNK else finding.program)
        for index, finding in enumerate(found)
    )


@pytest.mark.slow("runs thousands of programs")
@pytest.mark.timeout(3600)
def test_no_program_ends_a_process_or_is_objected_to_by_the_layer(runner: checking.Runner) -> None:
    report = checking.run_all(runner, map(programs.make, range(FIRST, FIRST + PROGRAMS)))
    print("\n".join(f"{kind}: {share:.0%} ran on the driver" for kind, share in report.shares().items()))
    few = {kind: share for kind, share in report.shares().items() if share < LEAST}
    assert not few, "a check that refuses everything proves nothing"
    assert report.programs == PROGRAMS
    assert not report.findings, findings_text(runner, report)


# What is drawn.


def structs_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every struct in a program."""
    if isinstance(value, dict):
        if CLASS in value:
            yield value
        for entry in value.values():
            yield from structs_in(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from structs_in(entry)


def test_every_field_of_every_struct_is_drawn_in_and_out_of_range() -> None:
    seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for seed in range(3000):
        for struct in structs_in(programs.make(seed)):
            for name, value in struct.items():
                seen[struct[CLASS], name].add(str(value))
    for kind in (
        vk.BufferCreateInfo,
        vk.ImageCreateInfo,
        vk.Extent3D,
        vk.MemoryAllocateInfo,
        vk.BufferMemoryBarrier,
        vk.ImageMemoryBarrier,
        vk.ImageSubresourceRange,
        vk.MemoryBarrier,
        vk.BindBufferMemoryInfo,
        vk.BindImageMemoryInfo,
        vk.PhysicalDeviceExternalBufferInfo,
        vk.PhysicalDeviceImageFormatInfo2,
    ):
        for field in hints(kind):
            values = seen[kind.__name__, field]
            if kind in (vk.PhysicalDeviceExternalBufferInfo, vk.BufferMemoryBarrier) and field == "p_next":
                continue  # no struct of `extmem.vk` that this machine's drivers support may follow it
            assert len(values) > 2 or field == "p_next", f"{kind.__name__}.{field}: {values}"
    assert "-1" in seen["ImageCreateInfo", "mip_levels"]
    assert str((1 << 64) - 1) in seen["BufferCreateInfo", "size"]


def test_every_kind_of_call_is_drawn_often() -> None:
    drawn: defaultdict[str, int] = defaultdict(int)
    for seed in range(1000):
        for step in programs.make(seed):
            for inner in [step, *step.get("do", [])]:
                drawn[inner["call"].removesuffix("2")] += 1
    assert not [kind for kind in checking.KINDS if drawn[kind] < 30], drawn


def test_every_kind_of_misuse_is_drawn_often() -> None:
    """Aspects that are stated, right and wrong; what is used after a release; and what may only be read."""
    aspects: set[str] = set()
    used = read = 0
    for seed in range(1000):
        program = programs.make(seed)
        read += any(step["call"] == "open" for step in program)
        for step in program:
            block = step.get("do", [])
            aspects |= {str(inner["with"]["aspect"]) for inner in block if "aspect" in inner["with"]}
            for first, second in itertools.pairwise(block):
                if first["call"] == "release" and second["call"] in ("fill_buffer", "clear_color_image"):
                    used += first["with"]["resource"] in second["with"].values()
    assert read > 50 and used > 5 and len(aspects) > 5, (read, used, aspects)


def test_a_seed_has_one_program() -> None:
    assert programs.make(7) == programs.make(7) != programs.make(8)


# What is found.


def test_a_right_program_runs_and_nothing_is_found(runner: checking.Runner) -> None:
    ran = runner.run([bound(0)])[0]
    assert ran.signs() == [] and {end for _, end, _ in ran.outcomes} == {"ran"}


def test_a_wrong_program_is_refused_and_nothing_is_found(runner: checking.Runner) -> None:
    ran = runner.run([bound(1)])[0]
    assert ran.signs() == [] and {end for _, end, _ in ran.outcomes} == {"ran", "refused"}


def hostile(base: str, form: str, *words: list[int], stated: int = 65_536) -> Program:
    """A program that imports one file."""
    more = {"base": base, "form": form, "words": list(words), "size": 65_536, "stated": stated, "index": 0, "length": 0}
    return [{"call": "hostile", "with": more}]


def test_hostile_files_are_drawn_of_every_base_and_in_every_way() -> None:
    steps = [step["with"] for seed in range(4000) for step in programs.make(seed) if step["call"] == "hostile"]
    assert {step["base"] for step in steps} == set(BASES) and {step["form"] for step in steps} == set(FORMS)
    assert len(steps) > 100 and any(step["words"] for step in steps) and any(step["length"] for step in steps)


def test_the_drivers_own_files_are_imported_in_every_way_and_hostile_ones_are_refused(runner: checking.Runner) -> None:
    fine = [hostile("own", form) for form in FORMS]
    bad = [hostile(base, form) for base in ("null", "pipe", "closed", "empty") for form in FORMS[:3]]
    bad += [hostile("own", "raw", stated=1 << 40), hostile("null", "described")]
    ran = runner.run([*fine, *bad])
    assert [one.signs() for one in ran] == [[]] * len(ran)
    assert [one.outcomes[0][1] for one in ran] == ["ran"] * len(fine) + ["refused"] * len(bad), ran


@pytest.mark.parametrize("form", FORMS)
def test_a_hostile_file_ends_a_process_that_compares_nothing_and_no_other(
    layer: None, vulkan_device: Device, form: str
) -> None:
    backend = vulkan_device.backend
    assert isinstance(backend, VulkanBackend)
    file_form = backend.imports.fds.form(1, 0)
    wrong = hostile("forged", form, [8, 1 << 40])
    with checking.Runner("extmem.devices.vulkan.fd_check:learn", layer=False) as unchecked:
        ran = unchecked.run([wrong])[0]
    assert ran.signs() == (["death: SIGSEGV"] if file_form is not None and file_form.start else []), ran
    with checking.Runner(layer=False) as closed:
        ran = closed.run([wrong])[0]
    assert ran.signs() == [] and (ran.outcomes[0][1] == "refused" or file_form is None or not file_form.start), ran


def test_a_death_an_error_and_a_message_are_found_and_shrunk(runner: checking.Runner) -> None:
    death: Program = [*bound(0), {"call": "planted death", "with": {}}]
    error: Program = [*bound(0), {"call": "planted error", "with": {}}]
    report = checking.run_all(runner, [bound(0), death, bound(0), error, bound(0)])
    assert set(report.findings) == {"death: SIGABRT", "escaped: LookupError"}
    assert report.programs == 5 and report.count("death") == report.count("escaped") == 1
    assert checking.shrunk(runner, report.findings["death: SIGABRT"]) == death[-1:]
    assert checking.shrunk(runner, report.findings["escaped: LookupError"]) == error[-1:]
    assert "planted death()" in checking.listing(death)


def test_a_check_that_is_taken_away_is_missed(layer: None, vulkan_device: object) -> None:
    with checking.Runner(HOLE) as runner:
        signs = runner.run([bound(1)])[0].signs()
    assert signs and all(sign.startswith((*FOUND, "death")) for sign in signs), signs


def test_memory_for_reading_is_not_written_to(runner: checking.Runner) -> None:
    ran = runner.run([READING])[0]
    assert ran.signs() == [] and [end for call, end, _ in ran.outcomes if call == "fill_buffer"] == ["refused"]
    assert checking.listing(READING).startswith(f"o = allocate(shape=64, name='arbitrary owner', access={READ:#x})")


def test_a_write_to_memory_for_reading_is_found(layer: None, vulkan_device: object) -> None:
    with checking.Runner("extmem.core.memory_record:MemoryRecord.check_writable") as runner:
        assert runner.run([READING])[0].signs() == ["escaped: WrittenError"]


def linear(aspect: Any) -> Program:
    """A program with an image whose layout is queried, of this aspect."""
    extent = {CLASS: "Extent3D", "width": 16, "height": 16, "depth": 1}
    info = {CLASS: "ImageCreateInfo", "image_type": 1, "format": 37, "extent": extent, "tiling": 1, "usage": 3}
    part = {CLASS: "ImageSubresource", "aspect_mask": aspect, "mip_level": 0, "array_layer": 0}
    return [
        {"call": "create_image", "to": "i", "with": {"info": info}},
        {"call": "subresource_layout", "with": {"image": {"ref": "i"}, "subresource": part}},
    ]


def test_an_aspect_that_the_image_lacks_is_refused_or_found(runner: checking.Runner) -> None:
    wrong = [linear(aspect) for aspect in (0, 2, 16, 1 << 31, 1.0, "x", {"odd": "object"})]
    for ran in runner.run(wrong):
        assert ran.signs() == [] and [end for _, end, _ in ran.outcomes] == ["ran", "refused"]
    assert {end for _, end, _ in runner.run([linear(1)])[0].outcomes} == {"ran"}
    with checking.Runner("extmem.rules:check_get_image_subresource_layout") as unchecked:
        assert unchecked.run([linear(16)])[0].signs() == ["layer: VUID-vkGetImageSubresourceLayout-format-04461"]


def test_structs_that_are_changed_behind_a_call_change_nothing(runner: checking.Runner) -> None:
    for how in (0, 1):
        program = bound(0)
        spoiled: Any = {"call": "spoil", "with": {"what": {"ref": "b"}, "given": "b", "how": how}}
        program.insert(1, spoiled)
        ran = runner.run([program])[0]
        assert ran.signs() == [] and {end for _, end, _ in ran.outcomes} == {"ran"}


def test_a_closed_device_is_asked_and_refuses(runner: checking.Runner) -> None:
    asked: Any = {"method": "create_buffer", "info": BUFFER[0]["with"]["info"]}
    answered: Any = {**asked, "method": "describe"}  # it is not a query, and returns
    refuses, answers = runner.run([[{"call": "closed_device", "with": one}] for one in (asked, answered)])
    assert refuses.signs() == [] and refuses.outcomes[0][1] == "ran"
    assert answers.outcomes[0][1] != "ran"


@pytest.mark.slow("runs hundreds of programs")
@pytest.mark.timeout(600)
def test_arbitrary_programs_find_a_check_that_is_taken_away(runner: checking.Runner) -> None:
    drawn = [programs.make(seed) for seed in range(FIRST, FIRST + FEW)]

    def found(report: checking.Report) -> set[str]:
        return {sign for sign in report.findings if sign.startswith("layer: VUID-vkAllocateMemory-")}

    with checking.Runner("extmem.rules:check_allocate_memory") as unchecked:
        assert found(checking.run_all(unchecked, drawn))
    assert not found(checking.run_all(runner, drawn))
