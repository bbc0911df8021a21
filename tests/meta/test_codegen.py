"""The generated files are what the generator makes, and a fault planted in any of them is found."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from codegen import __main__ as command
from codegen import fields, files, layout, names, registry, scope

ROOT = Path(__file__).resolve().parents[2]
ENUMS = f"{files.GENERATED}/enums.py"


@pytest.fixture(scope="module")
def model() -> registry.Model:
    return registry.load()


@pytest.fixture(scope="module")
def texts(model: registry.Model) -> dict[str, str]:
    return files.render(model)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what is committed, in which faults are planted."""
    for path in files.FILES:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, target)
    return tmp_path


def check(root: Path) -> int:
    return command.main(["--check", "--root", str(root)])


def test_no_drift_and_no_orphans(texts: dict[str, str]) -> None:
    assert files.compare(ROOT, texts) == []


def test_an_untouched_copy_passes(copy: Path) -> None:
    """The positive twin of the planted faults."""
    assert check(copy) == 0


def test_an_edited_file_is_found_and_the_diff_shown(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = copy / ENUMS
    target.write_text(target.read_text("utf-8").replace('"TYPE_2D": 1', '"TYPE_2D": 3'), "utf-8")
    assert check(copy) == 1
    out = capsys.readouterr().out
    assert f"differs: {ENUMS}" in out
    assert '-            "TYPE_2D": 3' in out
    assert '+            "TYPE_2D": 1' in out


@pytest.mark.parametrize("path", files.FILES)
def test_one_more_line_in_any_file_is_found(path: str, copy: Path, texts: dict[str, str]) -> None:
    with (copy / path).open("a", encoding="utf-8") as file:
        file.write("# edited\n")
    assert [c.splitlines()[0] for c in files.compare(copy, texts)] == [f"differs: {path}"]


def test_a_missing_file_is_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / ENUMS).unlink()
    assert check(copy) == 1
    assert f"missing: {ENUMS}" in capsys.readouterr().out


def test_an_orphan_is_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orphan = copy / files.GENERATED / "old" / "unions.py"
    orphan.parent.mkdir()
    orphan.write_text("", "utf-8")
    assert check(copy) == 1
    assert f"orphan: {files.GENERATED}/old/unions.py" in capsys.readouterr().out


def test_check_writes_nothing(copy: Path) -> None:
    target = copy / ENUMS
    target.write_text("edited", "utf-8")
    check(copy)
    assert target.read_text("utf-8") == "edited"


def test_writing_touches_the_closed_list_only_and_repairs(tmp_path: Path, texts: dict[str, str]) -> None:
    assert sorted(files.write(tmp_path, texts)) == sorted(files.FILES)
    there = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert there == set(files.FILES)
    (tmp_path / ENUMS).write_text("edited", "utf-8")
    assert files.write(tmp_path, texts) == [ENUMS]
    assert files.compare(tmp_path, texts) == []


def test_the_command_writes_what_is_missing(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / ENUMS).unlink()
    assert command.main(["--root", str(copy)]) == 0
    assert capsys.readouterr().out == f"wrote {ENUMS}\n"
    assert check(copy) == 0


def test_the_layout_command_writes_what_the_compiler_says_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / layout.FIXTURE
    target.parent.mkdir(parents=True)
    shutil.copy(ROOT / layout.STUB / "windows.h", target.parent)
    if layout.available():
        assert command.main(["layout", "--root", str(tmp_path)]) == 0
        assert set(layout.read_fixture(tmp_path)) == set(layout.read_fixture(ROOT))
        target.unlink()
    monkeypatch.setattr(layout, "available", lambda: "")
    assert command.main(["layout", "--root", str(tmp_path)]) == 1
    assert "install gcc and libvulkan-dev" in capsys.readouterr().err
    assert not target.exists()


def test_another_process_folder_and_hash_seed_make_the_same_bytes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "codegen", "--check"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_no_machine_path_or_date_gets_in(texts: dict[str, str]) -> None:
    for path, text in texts.items():
        for word in (str(ROOT), str(Path.home()) + "/", "/tmp/", "site-packages"):
            assert word not in text, f"{word} in {path}"
        assert not re.search(r"\b20[2-9]\d-\d\d-\d\d\b", text), f"a date in {path}"


def test_headers_name_the_generator_and_its_input(model: registry.Model, texts: dict[str, str]) -> None:
    for path, text in texts.items():
        head = text[:600]
        for word in ("python -m codegen", model.package_version, model.registry_version, model.input_hash):
            assert word in head, f"{word} not at the top of {path}"


def test_the_installed_registry_is_the_pinned_one(model: registry.Model) -> None:
    pinned = re.search(r"^vulkan-object==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    assert pinned is not None
    assert pinned.group(1) == model.package_version


def test_generator_modules_stay_small() -> None:
    for path in (ROOT / "codegen").glob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 300, path.name


def test_every_group_has_a_reason_and_nothing_is_in_scope_twice() -> None:
    for groups in (scope.STRUCTS, scope.COMMANDS, scope.CONSTANTS):
        assert all(group.reason.endswith(".") for group in groups)
        flat = [name for group in groups for name in group.names]
        assert len(flat) == len(set(flat))


def test_field_rules_speak_of_members_that_are_there(model: registry.Model) -> None:
    for struct, member in scope.FIELD_RULES:
        assert member in {f.c_name for f in model.struct(struct).fields}


def member(name: str, c_type: str, declaration: str, *, pointer: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        name=name, type=c_type, cDeclaration=declaration, fullType=declaration.rsplit(" ", 1)[0], pointer=pointer,
        length=None, fixedSizeArray=[],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        (member("rect", "VkRect2D", "VkRect2D rect"), r"VkX\.rect: VkRect2D is neither in scope"),
        (member("ppData", "void", "void** ppData", pointer=True), r"ppData: the generator cannot express void\*\*"),
    ],
)  # fmt: skip
def test_a_member_that_cannot_be_expressed_stops_the_run(planted: SimpleNamespace, words: str) -> None:
    kinds = fields.Kinds(frozenset(), frozenset(), {}, {}, frozenset(), {})
    good = member("size", "VkDeviceSize", "VkDeviceSize size")
    assert [f.py_name for f in fields.of_struct(SimpleNamespace(name="VkX", members=[good]), kinds)] == ["size"]
    with pytest.raises(ValueError, match=words):
        fields.of_struct(SimpleNamespace(name="VkX", members=[good, planted]), kinds)


@pytest.mark.parametrize(
    ("c_name", "python"),
    [
        ("allocationSize", "allocation_size"),
        ("deviceLUIDValid", "device_luid_valid"),
        ("pipelineCacheUUID", "pipeline_cache_uuid"),
        ("maxImageDimension2D", "max_image_dimension_2d"),
        ("residencyStandard2DBlockShape", "residency_standard_2d_block_shape"),
        ("srcStageMask", "src_stage_mask"),
    ],
)
def test_snake_case(c_name: str, python: str) -> None:
    assert names.snake(c_name) == python


@pytest.mark.parametrize(
    ("c_enum", "c_member", "python"),
    [
        ("VkMemoryMapFlagBits", "VK_MEMORY_MAP_PLACED_BIT_EXT", ("PLACED_EXT", "PLACED")),
        ("VkMemoryHeapFlagBitsNV", "VK_MEMORY_HEAP_X_BIT_NV", ("X_NV", "X")),
        ("VkAccessFlagBits2", "VK_ACCESS_2_SHADER_READ_BIT", ("SHADER_READ", "")),
        ("VkImageType", "VK_IMAGE_TYPE_2D", ("TYPE_2D", "")),
        ("VkSampleCountFlagBits", "VK_SAMPLE_COUNT_16_BIT", ("COUNT_16", "")),
        ("VkResult", "VK_ERROR_FRAGMENTATION_EXT", ("ERROR_FRAGMENTATION_EXT", "ERROR_FRAGMENTATION")),
        ("VkPhysicalDeviceType", "VK_PHYSICAL_DEVICE_TYPE_CPU", ("CPU", "")),
    ],
)  # fmt: skip
def test_member_names(c_enum: str, c_member: str, python: tuple[str, str]) -> None:
    vendors = ("KHR", "EXT", "NV")
    assert names.member_name(c_member, names.enum_prefix(c_enum, vendors), vendors) == python


def test_a_member_without_its_enum_s_prefix_is_reported() -> None:
    with pytest.raises(ValueError, match="does not begin with VK_IMAGE_TYPE_"):
        names.member_name("VK_FORMAT_UNDEFINED", "VK_IMAGE_TYPE_", ())


def test_a_word_that_two_vendors_use_differently_gets_no_short_name() -> None:
    def item(name: str, value: int) -> SimpleNamespace:
        return SimpleNamespace(name=name, value=value, aliases=[])

    made = registry._members("VkFormat", [item("VK_FORMAT_X_EXT", 1), item("VK_FORMAT_X_NV", 2)], ("EXT", "NV"), None)
    assert {m.name: m.value for m in made} == {"X_EXT": 1, "X_NV": 2}
    alone = registry._members("VkFormat", [item("VK_FORMAT_X_EXT", 1)], ("EXT", "NV"), None)
    assert {m.name: m.value for m in alone} == {"X_EXT": 1, "X": 1}
