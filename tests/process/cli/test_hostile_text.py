"""`extmem ps` and similar commands with hostile names and process names, and with outputs that lack characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from extmem.testing.children import Peer, python_environment
from extmem.testing.runtime import Runtime

DEADLINE = 300
NAMES = ["\x1b]0;x\x07", "\x1b[2Jwiped", "one\ntwo", "\u65e5\u672c", "\u202egpj.exe", "plain"]


@pytest.fixture(scope="module")
def house() -> Iterator[Runtime]:
    """A private runtime directory."""
    with Runtime() as private:
        yield private


@pytest.fixture
def empty_house() -> Iterator[Runtime]:
    """A private runtime directory of one test, where no broker runs."""
    with Runtime() as private:
        yield private


@pytest.fixture(scope="module")
def evil(house: Runtime) -> Iterator[Peer]:
    """Start a process with a name, which shares memory with names."""
    with Peer(env=house.environment) as peer:
        peer(
            "device = extmem.open_device(kind='host')\nkept = [device.allocate(16, name=n) for n in names]", names=NAMES
        )
        if sys.platform == "linux":
            peer("open('/proc/self/comm', 'w').write('\\x1b[31mevil')")
        yield peer


def listed(house: Runtime, *arguments: str, **more: str) -> str:
    environment = python_environment(house.environment)
    for name in ("COLUMNS", "PYTHONIOENCODING", "PYTHONUTF8", "LC_ALL", "LANG"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-m", "extmem", *arguments],
        env={**environment, **more},
        capture_output=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )
    encoding = more.get("PYTHONIOENCODING", "utf-8").partition(":")[0]
    output = done.stdout.decode(encoding) + done.stderr.decode(encoding)
    assert done.returncode == 0, output
    return output.replace(os.linesep, "\n")


def words_of(output: str) -> None:
    for line in output.split("\n"):
        assert line.isprintable(), repr(line)
    # in a narrow window a name may be broken into lines
    together = "".join(output.split())
    assert r"\x1b]0;x\x07" in together and r"\x1b[2Jwiped" in together and r"one\ntwo" in together
    assert r"\u202egpj.exe" in together and "plain" in together
    assert "6payloads,heldby1process." in together
    if sys.platform == "linux":
        assert r"\x1b[31mevil" in together


@pytest.mark.parametrize("columns", ["", "200", "60", "20"])
def test_ps_shows_them_and_sends_none_to_the_terminal(house: Runtime, evil: Peer, columns: str) -> None:
    output = listed(house, "ps", PYTHONUTF8="1", COLUMNS=columns)
    words_of(output)
    assert "\u65e5\u672c" in output


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict", "COLUMNS": "20"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=str,
)
def test_ps_writes_what_the_output_lacks_with_a_backslash(
    house: Runtime, evil: Peer, variables: dict[str, str]
) -> None:
    output = listed(house, "ps", **variables)
    words_of(output)
    together = "".join(output.split())
    assert "\u65e5\u672c" in together or r"\u65e5\u672c" in together
    if "PYTHONIOENCODING" in variables:
        assert r"\u65e5\u672c" in together


def test_ps_as_json_has_them_as_they_are(house: Runtime, evil: Peer) -> None:
    output = listed(house, "ps", "--json", PYTHONIOENCODING="cp1252")
    rows = json.loads(output[: output.rindex("]") + 1])
    assert sorted(name for row in rows for name in row["names"]) == sorted(NAMES)
    assert "\x1b" not in output


@pytest.mark.linux_only("on Windows a program without streams is one without a console")
def test_a_command_whose_output_is_closed_reports_it(empty_house: Runtime) -> None:
    command = f'exec {sys.executable} -m extmem "$@"'
    for redirection, arguments, code, message in (
        (">&-", ["ps"], 1, "error: the standard output is closed"),
        (">&-", ["--version"], 1, "error: the standard output is closed"),
        ("2>&-", ["--version"], 0, ""),
        ("2>&-", ["broker", "status"], 1, ""),
        ("<&-", ["broker", "status"], 1, "No broker runs here"),
    ):
        done = subprocess.run(
            ["sh", "-c", f"{command} {redirection}", "sh", *arguments],
            env=python_environment(empty_house.environment),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert (done.returncode, message in done.stderr) == (code, True), (redirection, arguments, done)
