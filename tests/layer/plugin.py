"""The pytest plugin of `--layer`: every test runs under the Khronos validation layer, and its messages fail it.

How this works. Each process that runs tests has a `Collector`, whose environment all that it starts inherits. After
each phase of a test (setup, call, teardown) the messages of that phase are taken and compared with `expected.py`. The
messages of a session's fixture are attributed to the first test that needs it, and those of its end to the last test.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from extmem.testing import leaks
from tests.layer.collector import PIPE, Collector, installed
from tests.layer.expected import missing, unexpected


class Layer:
    """See the module."""

    def __init__(self) -> None:
        self._collector = Collector()
        self._pipe = self._collector.environment[PIPE]
        leaks.NOT_OURS.add(self._pipe)
        self._seen: dict[str, set[str]] = {}
        self._passed = False
        self._before = {name: os.environ.get(name) for name in self._collector.environment}
        os.environ.update(self._collector.environment)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Skip every test where the layer is missing, because nothing would be checked."""
        if not installed():
            pytest.skip("no Khronos validation layer here: apt-get install -y vulkan-validationlayers")

    def pytest_unconfigure(self) -> None:
        """Restore the environment."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        leaks.NOT_OURS.discard(self._pipe)
        self._collector.close()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """Compare the messages of this phase with what is expected of the test."""
        report: pytest.TestReport = yield
        found = self._collector.take()
        so_far = self._seen.setdefault(item.nodeid, set())
        so_far.update(message.id for message in found)
        wrong = unexpected(item.nodeid, so_far) if found else []
        if report.when == "call":
            self._passed = report.passed
        if report.when == "teardown":
            del self._seen[item.nodeid]
            if self._passed:
                wrong += missing(item.nodeid, so_far)
            self._passed = False
        if wrong:
            first = {message.id: str(message) for message in reversed(found)}
            text = "\n".join(["the validation layer:", *wrong, f"of {len(found)} messages:", *first.values()])
            if report.failed:
                report.sections.append(("validation layer", text))
            else:
                report.outcome = "failed"
                report.longrepr = text
        return report
