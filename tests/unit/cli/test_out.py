"""What commands print: tables, narrow windows, sizes."""

from __future__ import annotations

import io
import json

import pytest
from rich.cells import cell_len

from extmem.cli import _out

ROWS = [("frames", "31.6 MiB", "one\ntwo"), ("(unnamed)", "4 KiB", "three")]
HEADERS = ("name", "size", "held by")


def _drawn(monkeypatch: pytest.MonkeyPatch, columns: str | None, title: str = "") -> list[str]:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    stream = io.StringIO()
    _out.table(HEADERS, ROWS, title=title, stream=stream)
    return stream.getvalue().splitlines()


def test_a_table_has_its_title_its_headers_and_every_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _drawn(monkeypatch, "80", "What is shared")
    assert lines[0] == "What is shared"
    assert lines[1].split() == ["name", "size", "held", "by"]
    assert [line.split() for line in lines[3:6]] == [
        ["frames", "31.6", "MiB", "one"],
        ["two"],
        ["(unnamed)", "4", "KiB", "three"],
    ]
    assert lines[-1] == ""
    assert all(line == line.rstrip() for line in lines)


def test_a_narrow_window_gets_records_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _drawn(monkeypatch, "20")
    assert lines == [
        "- name: frames",
        "  size: 31.6 MiB",
        "  held by: one",
        "    two",
        "- name: (unnamed)",
        "  size: 4 KiB",
        "  held by: three",
        "",
    ]


def test_into_a_pipe_nothing_is_cut_off_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    stream = io.StringIO()
    _out.table(("name",), [("x" * 500,)], stream=stream)
    assert "x" * 500 in stream.getvalue()


def test_brackets_and_colons_in_names_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    stream = io.StringIO()
    _out.table(("name",), [("[red]frames[/red] :smile:",)], stream=stream)
    assert "[red]frames[/red] :smile:" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1 MiB"),
        (33_177_600, "31.6 MiB"),
        ((1 << 20) - 1, "1 MiB"),
        (256 << 20, "256 MiB"),
        (1 << 30, "1 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_sizes_for_people(count: int, expected: str) -> None:
    assert _out.bytes_in_words(count) == expected


def test_json_is_for_programs_and_words_are_not_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    _out.emit_json([{"name": "Ünïcode"}])
    _out.words("by the way")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == [{"name": "Ünïcode"}]
    assert printed.out.isascii()
    assert printed.err == "by the way\n"


@pytest.mark.parametrize("name", ["日本語", "데이터", "e\u0301", "😀", "plain"])
@pytest.mark.parametrize("rows", [1, 501])
def test_wide_characters_cut_nothing_off(rows: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (20, 60, 75, 80, 90, 110):
        monkeypatch.setenv("COLUMNS", str(columns))
        stream = io.StringIO()
        _out.table(
            ("name", "kind", "held by"), [(name * 8, "array 4 uint8", "1234 python: exporter")] * rows, stream=stream
        )
        drawn = stream.getvalue()
        assert drawn.count(name * 8) == drawn.count("1234 python: exporter") == rows
        assert "held by" in drawn and "…" not in drawn
        assert max(map(cell_len, drawn.splitlines())) <= columns or "- name:" in drawn


@pytest.mark.parametrize("stated", ["", "0", "wide", "-3", "²", "٣", "8_0", " 80", "9" * 5000, "9" * 12])
@pytest.mark.parametrize("variable", ["COLUMNS", "LINES"])
def test_a_size_of_the_window_that_is_not_usable_is_ignored(
    variable: str, stated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, stated)
    assert _out.width(io.StringIO()) > 1000
    stream = io.StringIO()
    _out.table(("name",), [("frames",)], stream=stream)
    assert "frames" in stream.getvalue()


@pytest.mark.parametrize("stated", ["80", "0080"])
def test_a_number_of_columns_is_used(stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", stated)
    assert _out.width(io.StringIO()) == 80


# Text of other programs.

EVIL = {
    "a title": "\x1b]0;x\x07",
    "a colour": "\x1b[31mred",
    "a return": "fine\rerror: gone",
    "a line": "one\ntwo",
    "a bell": "\a\b\x7f",
    "one byte for two": "\x9b31m\x85",
    "from right to left": "\u202egpj.exe",
    "another line": "\u2028\u2029",
    "half a character": "\udc80\ud83d",
    "no width": "a\u200bb\ufeff",
}


@pytest.mark.parametrize("what", EVIL)
def test_nothing_of_others_is_acted_on(what: str) -> None:
    cleaned = _out.clean(EVIL[what])
    assert cleaned.isprintable() and "\\" in cleaned
    assert _out.clean(cleaned) == cleaned


@pytest.mark.parametrize("text", ["", "plain", "日本", "Ünïcode", "Local\\name", "[red]x[/red]", "a  b", "😀"])
def test_what_can_be_shown_is_shown_as_it_is(text: str) -> None:
    assert _out.clean(text) == text


@pytest.mark.parametrize("columns", [None, "80", "20"])
@pytest.mark.parametrize("what", EVIL)
def test_no_table_and_no_line_has_it_either(
    what: str, columns: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    text = EVIL[what]
    _out.table(("name", "held by"), [(text, f"1 {text}"), ("plain", "2")], title="title")
    _out.emit_line(f"name: {text}")
    _out.words(f"error: {text}")
    printed = capsys.readouterr()
    for line in (printed.out + printed.err).split("\n"):
        assert line.isprintable(), line
    assert "plain" in printed.out


def test_the_output_takes_what_its_encoding_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("cp1252", "ascii", "latin-1"):
        octets = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(octets, encoding))
        _out.prepare()
        _out.emit_line("日 é")
        _out.table(("name",), [("日",)])
        _out.words("and so on")
        printed = octets.getvalue().decode(encoding)
        assert printed.count("\\u65e5") == 2
