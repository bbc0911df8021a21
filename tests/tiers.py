"""Which tests `make test` runs, and which are left to `make test-all`.

How this works. Tests that carry the mark `slow(reason)` are left to `make test-all`: whole files and folders get it
from `SLOW` below, single tests by `@pytest.mark.slow("reason")`. `make test` selects with `-m "not slow"`, the rest of
`make test-all` with `-m slow`, so that together they run every test once. Without `-m`, as in
`python -m pytest tests/process/test_crashes.py`, all tests run.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

_KILLS = "kills processes with -9 at every step of their work"
_RESTARTS = "starts and ends brokers for every test"
_EVERY_CALL = "lets every call of the system or of a driver fail, for every operation"

SLOW = {
    "gpu": "needs an NVIDIA GPU, most of it PyTorch, CuPy or JAX too",
    "unit/interop/test_read_only_tensor.py": "needs PyTorch, which takes seconds to import",
    "unit/interop/test_torch_operations.py": "needs PyTorch, which takes seconds to import",
    "unit/interop/test_torch.py": "needs PyTorch, which takes seconds to import",
    "unit/interop/test_reading_torch.py": "needs PyTorch, which takes seconds to import",
    "unit/api/test_share_torch.py": "needs PyTorch, which takes seconds to import",
    "unit/api/test_safetensors_library.py": "needs PyTorch, which takes seconds to import",
    "unit/api/test_safetensors_large.py": "reads headers of 100 MB, and files of 2^20 tensors",
    "unit/api/test_share_frames.py": "needs pandas and Polars, which take seconds to import",
    "meta/test_packaging.py": "builds and installs wheels",
    "meta/test_site.py": "builds sites with Sphinx, seconds for each, which `make test` does not install",
    "process/cuda/test_killed.py": _KILLS,
    "process/test_broker_killed.py": _KILLS,
    "process/test_crashes.py": _KILLS,
    "process/test_loaders_killed.py": _KILLS,
    "process/test_file_memory.py": "loads files of 256 MiB in several processes",
    "process/test_timeline_deaths.py": _KILLS,
    "process/test_changes.py": _KILLS,
    "process/test_freeze.py": _KILLS,
    "process/broker/test_names.py": _RESTARTS,
    "process/cli/test_bench_channel.py": "runs whole benchmarks",
    "process/cli/test_bench_tensors.py": "runs whole benchmarks",
    "process/broker/test_hostile_names.py": _RESTARTS,
    "unit/cli/_top/test_app.py": "draws whole screens, half a second for each",
    "unit/cli/_top/test_web.py": "starts a server, and programs for its pages",
    "process/cli/test_top.py": "starts the command line a dozen times",
    "process/cli/test_channels.py": "starts the command line, and the processes of channels, for every test",
    "process/cli/test_kept.py": "starts the command line a dozen times",
    "process/broker/test_namespaces.py": _RESTARTS,
    "process/broker/test_recovery.py": _RESTARTS,
    "process/broker/test_restart.py": _RESTARTS,
    "process/broker/test_resume.py": _RESTARTS,
    "process/broker/test_robust.py": _RESTARTS,
    "arbitrary/test_arbitrary.py": "starts a process for each group of arbitrary programs",
    "faults/test_cuda_nth_call.py": _EVERY_CALL,
    "faults/test_sync_nth_call.py": _EVERY_CALL,
    "faults/test_sharing_nth_call.py": _EVERY_CALL,
    "faults/test_channel_nth_call.py": _EVERY_CALL,
    "faults/test_vulkan_nth_call.py": _EVERY_CALL,
    "property/objects/test_naming_machine.py": "lets Hypothesis search long for calls that no written test contains",
    "interrupts": "interrupts every operation at every instruction",
    "meta/test_testing_conformance.py": "runs the conformance suite on devices with planted faults",
    "meta/test_testing_sync_conformance.py": "runs the conformance suite on devices with planted faults",
    "unit/testing/test_fake_cuda_conformance.py": "runs the conformance suite on the scripted driver",
    "unit/testing/test_fake_vulkan_sync_conformance.py": "runs the conformance suite on the scripted driver",
    "unit/testing/test_fake_vulkan_conformance.py": "runs the conformance suite on the scripted driver",
}
"""Files and folders below tests/, and why they are left to `make test-all`."""


def why_slow(path: Path) -> str | None:
    """Return why this file's tests are left to `make test-all`; None where they are not."""
    parts = path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""
    return next((why for entry, why in SLOW.items() if parts == entry or parts.startswith(f"{entry}/")), None)


SLOW_DEADLINE = 600
"""Seconds after which a slow test is considered to hang: some take a minute on a busy machine."""


class Tiers:
    """The pytest plugin for it."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark the tests of the files in `SLOW`, before `-m` selects, and give slow tests their deadline."""
        for item in items:
            reason = why_slow(item.path)
            if reason is not None:
                item.add_marker(pytest.mark.slow(reason))
            if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(SLOW_DEADLINE))


def workers() -> int:
    """Return the number of processes that run tests: more than processors, as tests wait for a third of the time."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min((processors * 3 + 1) // 2, 8)
