"""Memory that is shared when it is first sent: by several threads at once, and after a failure."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

import extmem
from extmem.manager import manager
from extmem.testing import leaks
from extmem.testing.waiting import DEADLINE

Make = Callable[[extmem.Device], Any]
MAKE: dict[str, Make] = {
    "memory": lambda device: device.allocate(16),
    "timeline": lambda device: device.timeline(),
}


@pytest.fixture(params=MAKE)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKE[request.param]


def test_threads_that_send_it_at_once_share_it_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    real, exports, second = type(manager()).export, [], threading.Event()

    def slow(*arguments: Any, **named: Any) -> Any:
        exports.append(None)
        second.wait(0.2 if len(exports) == 1 else 0)  # the other thread comes here meanwhile, unless it is kept out
        return real(*arguments, **named)

    with leaks.no_leaks(), extmem.open_device(kind="host") as device, make(device) as thing:
        monkeypatch.setattr(type(manager()), "export", slow)
        sent: list[bytes] = []
        threads = [threading.Thread(target=lambda: sent.append(pickle.dumps(thing))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert len(exports) == 1 and len(sent) == 3
        for data in sent:
            pickle.loads(data).close()


def test_it_is_shared_after_a_failure(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> Any:
        raise extmem.PeerGoneError("planted")

    with leaks.no_leaks(), extmem.open_device(kind="host") as device, make(device) as thing:
        with monkeypatch.context() as broken:
            broken.setattr(type(manager()), "export", refuse)
            with pytest.raises(extmem.PeerGoneError, match="planted"):
                pickle.dumps(thing)
        pickle.loads(pickle.dumps(thing)).close()
