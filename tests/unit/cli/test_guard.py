"""How every command reports errors: as text and exit codes."""

from __future__ import annotations

import signal
import threading

import click
import pytest

from extmem import errors
from extmem.cli._guard import describe_error, guarded
from extmem.rules import Violation
from tests.systems import on_linux, on_windows


def _outcome(error: BaseException) -> int:
    @guarded
    def command() -> None:
        raise error

    with pytest.raises(click.exceptions.Exit) as ended:
        command()
    return ended.value.exit_code


def test_a_refusal_tells_its_class_and_message_and_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert _outcome(errors.NameNotFoundError("no object is named 'x'; share it first", ntstatus=1, winerror=2)) == 1
    printed = capsys.readouterr()
    assert printed.err == "error: NameNotFoundError: no object is named 'x'; share it first\n"
    assert printed.out == ""


def test_a_rule_violation_tells_every_rule_with_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    broken = [
        Violation("VUID-one", "Info.name", "it is 'a'", "drop it"),
        Violation("VUID-two", "Info.handle", "it is 0", "give one"),
    ]
    assert _outcome(errors.RuleViolation(broken, command="vkAllocateMemory")) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: RuleViolation: vkAllocateMemory breaks 2 rules",
        "  VUID-one",
        "    at Info.name: it is 'a'",
        "    do: drop it",
        "  VUID-two",
        "    at Info.handle: it is 0",
        "    do: give one",
        "hint: extmem explain VUID-one",
    ]


def test_the_object_managers_refusal_names_the_rule_that_it_decides() -> None:
    broken = [Violation("VUID-one", "Info.name", "nothing has it", "share it")]
    error = errors.NameNotFoundError("no such name", ntstatus=1, winerror=2, violations=broken)
    assert describe_error(error)[0] == "error: NameNotFoundError: no such name"
    assert "    do: share it" in describe_error(error)


def test_ctrl_c_is_one_line_and_exits_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert _outcome(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_unforeseen_error_is_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EXTMEM_TRACEBACK", raising=False)
    assert _outcome(RuntimeError("nobody expects it")) == 1
    stderr = capsys.readouterr().err
    assert (
        "error: RuntimeError: nobody expects it" in stderr
        and "please report it" in stderr
        and "Traceback" not in stderr
    )


def test_wrong_arguments_are_left_to_the_parser() -> None:
    @guarded
    def command() -> None:
        raise click.BadParameter("not that")

    with pytest.raises(click.BadParameter):
        command()


def test_a_traceback_is_there_for_those_who_ask(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTMEM_TRACEBACK", "1")
    assert _outcome(OSError("the disk")) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "SIGTERM",
        on_linux("SIGHUP", reason="Windows has SIGBREAK for it"),
        on_windows("SIGBREAK", reason="Linux has SIGHUP for it"),
    ],
)
def test_a_polite_signal_unwinds_what_a_command_has_begun(name: str) -> None:
    number: signal.Signals = getattr(signal, name)
    before = signal.getsignal(number)
    unwound = []

    @guarded
    def command() -> None:
        try:
            # This is not os.kill, which on Windows is TerminateProcess.
            signal.raise_signal(number)
            threading.Event().wait(30)
        finally:
            unwound.append(True)

    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 128 + number
    assert unwound == [True]
    assert signal.getsignal(number) == before


def test_a_command_that_goes_well_returns_its_value() -> None:
    assert guarded(lambda: 7)() == 7


def test_an_error_with_others_words_in_it_begins_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    name = "x'\nhint: run this\x1b[2J\rerror: gone"
    assert _outcome(errors.NameNotFoundError(f"no object is named '{name}'", ntstatus=1, winerror=2)) == 1
    broken = [Violation("VUID-one", name, f"it is {name}", f"drop {name}")]
    assert _outcome(errors.RuleViolation(broken, command="vkAllocateMemory")) == 1
    lines = capsys.readouterr().err.split("\n")
    assert all(line.isprintable() for line in lines)
    assert [line.split(":")[0] for line in lines if line and not line.startswith(" ")] == ["error", "error", "hint"]
    assert lines[-2] == "hint: extmem explain VUID-one"


def test_a_traceback_is_clean_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EXTMEM_TRACEBACK", "1")
    assert _outcome(OSError("\x1b]0;x\x07")) == 1
    stderr = capsys.readouterr().err
    assert (
        "Traceback" in stderr and "\\x1b]0;x\\x07" in stderr and all(line.isprintable() for line in stderr.split("\n"))
    )
