"""Commands that need no broker: their output, its format, and their exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import extmem
from extmem.cli import main
from extmem.cli._app import app

COMMANDS = (
    "devices",
    "ps",
    "top",
    "channels",
    "channel",
    "rules",
    "explain",
    "demo",
    "bench",
    "broker",
    "broker status",
    "broker run",
    "broker stop",
)


def _run(*arguments: str, **environment: str | None) -> Result:
    return CliRunner().invoke(app, list(arguments), env=environment)


def _json(*arguments: str) -> Any:
    result = _run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_says_its_exit_codes(command: str) -> None:
    result = _run(*command.split(), "--help")
    assert result.exit_code == 0
    if command != "broker":
        assert "Exit codes:" in result.stdout and "--json" in result.stdout


def test_the_help_lists_every_command_and_all_exit_codes() -> None:
    result = _run("--help")
    assert result.exit_code == 0
    output = " ".join(result.stdout.split())
    places = [output.index(f" {command} ") for command in COMMANDS if " " not in command]
    assert places == sorted(places), "the commands are in their order, and not in that of the alphabet"
    assert "130 interrupted" in output


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_without_loading_the_command_line(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([option])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"extmem {extmem.__version__}\n"


def test_ctrl_c_outside_of_a_command_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["extmem.cli._app"], "run", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["ps"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_ctrl_c_that_the_parser_swallows_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(click.Command, "make_context", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["ps"])
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip() == "interrupted"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["pss"], "Did you mean 'ps'"),
        (["ps", "--jsno"], "--json"),
        (["top", "--interval", "0"], "--interval"),
        (["top", "--port", "8000"], "a port is for --web"),
        (["top", "--web", "--port", "70000"], "--port"),
        (["explain"], "Missing argument"),
        (["explain", "--jsno"], "no such option: --jsno"),
        (["bench", "everything"], "open"),
        (["bench", "open", "--part", "reads"], "bench tensors --part"),
        (["bench", "tensors", "--part", "everything"], "gpu-files"),
        (["bench", "tensors", "--part", "hops"], "parts of one subject"),
        (["bench", "channel", "sync", "--part", "hops"], "parts of one subject"),
        (["rules", "--family", "nope"], "win32-memory"),
        (["rules", "--status", "nope"], "by construction"),
        (["demo", "--out", "/nowhere/at/all.png"], "directory that exists"),
        (["demo", "--out", "x.jpg"], "'x.jpg' is not a name of a PNG file"),
        (["demo", "--out", "-"], "ends in .png"),
        (["demo", "--out", "picture"], "ends in .png"),
        (["demo", "--frames", "0"], "--frames"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_exit_2_with_a_hint_on_stderr(arguments: list[str], hint: str) -> None:
    result = _run(*arguments)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert "Try 'extmem" in result.stderr
    assert result.stdout == ""


# completion


def _completed(shell: str, *words: str) -> str:
    """Return what a shell gets from the command to complete the last of these words, by Click's protocol."""
    at = words[-1] if shell == "fish" else str(len(words) - 1)
    return _shell(f"{shell}_complete", COMP_WORDS=" ".join(words), COMP_CWORD=at)


def _shell(instruction: str, **environment: str) -> str:
    result = CliRunner().invoke(app, [], prog_name="extmem", env={**environment, "_EXTMEM_COMPLETE": instruction})
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("shell", "offered"),
    [
        ("bash", ["plain,devices", "plain,demo"]),
        ("zsh", ["plain", "devices", "List every device"]),
        ("fish", ["plain,devices\tList every device"]),
    ],
)
def test_every_shell_completes_commands(shell: str, offered: list[str]) -> None:
    output = _completed(shell, "extmem", "de")
    assert all(word in output for word in offered) and "bench" not in output
    assert f"_EXTMEM_COMPLETE={shell}_complete" in _shell(f"{shell}_source")


def test_options_and_values_are_completed() -> None:
    assert _completed("bash", "extmem", "broker", "st").split() == ["plain,status", "plain,stop"]
    assert "plain,--family" in _completed("bash", "extmem", "rules", "--").split()
    assert _completed("bash", "extmem", "bench", "op").split() == ["plain,open"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_values_of_rules_and_explain_are_completed(shell: str) -> None:
    assert "win32-memory" in _completed(shell, "extmem", "rules", "--family", "win")
    assert "fd-memory" not in _completed(shell, "extmem", "rules", "--family", "win")
    assert "by-construction" in _completed(shell, "extmem", "rules", "--status", "by")
    assert "planned" not in _completed(shell, "extmem", "rules", "--status", "by")
    assert "NameTakenError" in _completed(shell, "extmem", "explain", "NameT")
    vuid = "VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00662"
    completed = _completed(shell, "extmem", "explain", "DriverError", vuid[:-2])
    assert vuid in completed and "DriverError" not in completed


@pytest.mark.parametrize("option", ["--family", "--status"])
def test_every_completed_value_is_accepted(option: str) -> None:
    values = [line.removeprefix("plain,") for line in _completed("bash", "extmem", "rules", option, "''").split()]
    assert len(values) >= 5
    for value in values:
        assert _json("rules", option, value), value


@pytest.mark.parametrize(
    "environment",
    [{}, {"COMP_WORDS": "extmem de"}, {"COMP_WORDS": "extmem de", "COMP_CWORD": "one"}, {"COMP_CWORD": "1"}],
    ids=str,
)
def test_completion_without_its_variables_exits_quietly(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("COMP_WORDS", "COMP_CWORD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"_EXTMEM_COMPLETE": "bash_complete", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 1
    assert capsys.readouterr() == ("", "")


INTERRUPTED_IMPORT = """
import sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
{start}
"""


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("extmem.cli", "import runpy; runpy.run_module('extmem', run_name='__main__')"),
        ("extmem.cli._streams", "from extmem.cli import main; main()"),
        ("extmem.cli._app", "from extmem.cli import main; main()"),
        ("click", "import runpy; runpy.run_module('extmem', run_name='__main__')"),
    ],
)
def test_ctrl_c_while_a_module_is_imported_is_one_line(name: str, start: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT.format(name=name, start=start)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr.splitlines(), done.stdout) == (130, ["interrupted"], "")


# devices


def test_devices_as_json_has_everything_that_the_device_answers() -> None:
    (host,) = [found for found in _json("devices") if found["kind"] == "host"]
    assert host["kind"] == "host" and len(bytes.fromhex(host["device_uuid"])) == 16
    assert host["luid"] is None
    assert [kind["index"] for kind in host["memory_types"]] == [0, 1]
    assert "HOST_VISIBLE" in host["memory_types"][0]["flags"]
    kinds = {kind["type"]: kind for kind in host["handle_types"]}
    nt = kinds["OPAQUE_WIN32"]["buffer"]
    assert (nt["export"], nt["import"], nt["dedicated_only"]) == (True, True, False)
    if sys.platform == "linux":
        assert nt["compatible"] == ["OPAQUE_FD", "OPAQUE_WIN32"] == nt["export_from_imported"]
    else:  # a section has one name for life, and no fd
        assert (nt["compatible"], nt["export_from_imported"]) == (["OPAQUE_WIN32"], [])
    attachment = next(image for image in kinds["OPAQUE_WIN32"]["images"] if "COLOR_ATTACHMENT" in image["usage"])
    assert attachment["dedicated_only"] is True
    refused = next(image for image in kinds["OPAQUE_WIN32_KMT"]["images"] if image["format"] == "BC7_UNORM_BLOCK")
    assert refused["export"] is False and refused["reason"]
    assert kinds["D3D12_HEAP"]["buffer"]["import"] is False


def test_devices_as_a_table_is_readable_in_80_columns() -> None:
    result = _run("devices", COLUMNS="80")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.split()[:2] == ["OPAQUE_WIN32", "buffers"] for line in lines)
    assert "D3D12_HEAP" in result.stdout[result.stdout.index("Not supported by this device") :]


def test_devices_in_40_columns_are_reported_line_by_line() -> None:
    result = _run("devices", COLUMNS="40")
    assert result.exit_code == 0
    assert "- handle type: OPAQUE_WIN32_KMT" in result.stdout.splitlines()


# rules


def test_rules_as_json_is_the_ledger() -> None:
    from extmem.rules import ledger

    listed = _json("rules")
    assert [row["vuid"] for row in listed] == [row.vuid for row in ledger.rows()]
    assert all(list(row) == ["vuid", "family", "status", "checked_by", "reason", "tests"] for row in listed)
    assert all(isinstance(row["tests"], list) for row in listed)


def test_rules_are_filtered_by_family_and_status() -> None:
    listed = _json("rules", "--family", "win32-memory", "--status", "checked")
    assert listed
    assert {(row["family"], row["status"]) for row in listed} == {("win32-memory", "checked")}


def test_rules_as_a_table_gives_a_reason_for_every_unchecked_one() -> None:
    result = _run("rules", "--status", "left to the caller", COLUMNS=None)
    rows = [line for line in result.stdout.splitlines() if "VUID-" in line]
    assert rows and all(len(line.split("left to the caller")[1].strip()) > 10 for line in rows)
    assert result.stderr.startswith(f"{len(rows)} rule")


def test_long_reasons_are_broken_within_the_window_and_not_cut() -> None:
    result = _run("rules", "--family", "generic", "--status", "left to the caller", COLUMNS="120")
    assert max(map(len, result.stdout.splitlines())) <= 120
    output = " ".join(result.stdout.split())
    (first, *_) = _json("rules", "--family", "generic", "--status", "left to the caller")
    assert first["reason"].split()[-1] in output


# explain


def test_explain_a_rule_with_a_wrong_and_a_right_example() -> None:
    result = _run("explain", "01441", COLUMNS="80")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "VUID-VkImportMemoryWin32HandleInfoKHR-handle-01441"
    assert lines.index("Wrong:") < lines.index("Right:")
    assert any(line.startswith("See https://") for line in lines)


def test_explain_several_and_a_negative_number_as_json() -> None:
    output = _json("explain", "NameTakenError", "-1000072003")
    assert [one["kind"] for one in output] == ["error", "VkResult"]
    assert "wrong_example" in output[0] and "right_example" in output[0]


def test_explain_an_unknown_one_names_what_looks_like_it_and_exits_1() -> None:
    result = _run("explain", "NameTakenErorr", "01441", "--json")
    assert result.exit_code == 1
    assert "NameTakenError" in result.stderr
    assert [one["kind"] for one in json.loads(result.stdout)] == ["rule"]


def test_explain_fits_40_columns() -> None:
    result = _run("explain", "01441", COLUMNS="40")
    prose = result.stdout.split("Wrong:")[0].splitlines()[1:]
    assert max(len(line) for line in prose if not line.startswith("VUID")) <= 40
