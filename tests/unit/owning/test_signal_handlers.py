"""What a signal handler raises while something is given back comes out; what the system refuses is tried again."""

from __future__ import annotations

import logging
import os

import pytest

from extmem.owning import Held, OwnedFd, raised_by_handler, unsettled, work_off


class Refusing(Held):
    """Its first attempt to give it back raises what `refuse` raises."""

    def __init__(self, refuse: object) -> None:
        super().__init__()
        self.refuse = refuse
        self.given = False

    def give_back(self) -> None:
        refuse, self.refuse = self.refuse, None
        if callable(refuse):
            refuse()
        self.given = True


def _handler() -> None:
    raise TimeoutError("the handler raised it")


def _refused_by_the_system() -> None:
    # A function of the library, whose call of the system fails.
    OwnedFd.open(os.path.join("no such folder", "no file"), os.O_RDONLY)


def test_a_handlers_exception_comes_out_and_the_thing_is_given_back_later() -> None:
    held = Refusing(_handler)
    with pytest.raises(TimeoutError, match="the handler raised it"), held.use():
        held.closing = True
    assert not held.given and held in unsettled
    work_off()
    assert held.given and held not in unsettled


def test_what_the_system_refuses_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    held = Refusing(_refused_by_the_system)
    with caplog.at_level(logging.WARNING, "extmem"), held.use():
        held.closing = True
    assert "could not be given back" in caplog.text and not held.given
    work_off()
    assert held.given


def test_the_traceback_tells_whose_exception_it_is() -> None:
    with pytest.raises(TimeoutError) as raised:
        _handler()
    assert raised_by_handler(raised.value)
    with pytest.raises(OSError) as refused:
        _refused_by_the_system()
    assert not raised_by_handler(refused.value)
    assert not raised_by_handler(OSError("never raised"))
