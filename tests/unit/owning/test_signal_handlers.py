"""An exception of a signal handler during a release propagates; an error of the system is logged and tried again."""

from __future__ import annotations

import gc
import logging
import os
import weakref

import pytest

from extmem.owning import Held, OwnedFd, raised_by_handler, unsettled, work_off


class Refusing(Held):
    """A resource whose first release calls `refuse`, which raises."""

    def __init__(self, refuse: object) -> None:
        super().__init__()
        self.refuse = refuse
        self.released = False

    def give_back(self) -> None:
        refuse, self.refuse = self.refuse, None
        if callable(refuse):
            refuse()
        self.released = True


def _handler() -> None:
    raise TimeoutError("the handler raised it")


def _refused_by_the_system() -> None:
    # A function of the library, whose call of the system fails.
    OwnedFd.open(os.path.join("no such folder", "no file"), os.O_RDONLY)


def test_a_handlers_exception_propagates_and_the_resource_is_released_later() -> None:
    held = Refusing(_handler)
    with pytest.raises(TimeoutError, match="the handler raised it"), held.use():
        held.closing = True
    assert not held.released and held in unsettled
    work_off()
    assert held.released and held not in unsettled


def test_what_the_system_refuses_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    held = Refusing(_refused_by_the_system)
    with caplog.at_level(logging.WARNING, "extmem"), held.use():
        held.closing = True
    assert "could not be released" in caplog.text and not held.released
    work_off()
    assert held.released


def test_a_kept_log_record_does_not_keep_the_resource(caplog: pytest.LogCaptureFixture) -> None:
    held = Refusing(_refused_by_the_system)
    with caplog.at_level(logging.WARNING, "extmem"), held.use():
        held.closing = True
    work_off()
    seen = weakref.ref(held)
    del held
    gc.collect()
    assert caplog.records and seen() is None


def test_the_traceback_shows_whose_exception_it_is() -> None:
    with pytest.raises(TimeoutError) as raised:
        _handler()
    assert raised_by_handler(raised.value)
    with pytest.raises(OSError) as refused:
        _refused_by_the_system()
    assert not raised_by_handler(refused.value)
    assert not raised_by_handler(OSError("never raised"))
