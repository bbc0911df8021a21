"""The table of rights has a row for every request, and states what is enforced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import pytest

from extmem import wire
from extmem.broker import rights
from extmem.broker.rights import RIGHTS, Right, When, Who, permit
from extmem.errors import PeerProtocolError
from extmem.objects import Refused, Status
from extmem.wire.limits import Message
from tests.unit.wire.test_codec import REQUESTS

OWN, OTHER = 1000, 2000


def gaps(table: Mapping[type[Message], Right]) -> list[str]:
    """Return what is wrong with a table: requests without a row, rows without a request, rows without a text."""
    requests = {kind.__name__: kind for kind in get_args(wire.Request)}
    rows = {kind.__name__: row for kind, row in table.items()}
    found = [f"{name} has no row" for name in requests.keys() - rows.keys()]
    found += [f"{name} is not a request" for name in rows.keys() - requests.keys()]
    found += [f"{name} says nothing" for name, row in rows.items() if not row.believed.strip().endswith(".")]
    return found


def test_every_request_has_its_row() -> None:
    assert gaps(RIGHTS) == []


@pytest.mark.parametrize("kind", list(RIGHTS), ids=lambda kind: kind.__name__)
def test_a_row_that_is_missing_is_found(kind: type[Message], monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {other: row for other, row in RIGHTS.items() if other is not kind}
    assert gaps(rest) == [f"{kind.__name__} has no row"]
    monkeypatch.setattr(rights, "RIGHTS", rest)
    request = next(request for request in REQUESTS if type(request) is kind)
    with pytest.raises(PeerProtocolError, match="is not a request"):
        permit(request, OWN, own=OWN, greeted=True, recovering=True)


def test_a_row_too_many_and_a_row_without_a_word_are_found() -> None:
    assert gaps({**RIGHTS, wire.Done: RIGHTS[wire.Hello]}) == ["Done is not a request"]
    assert gaps({**RIGHTS, wire.Stop: Right(Who.CONTROL, When.ANY, "")}) == ["Stop says nothing"]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_each_row_is_enforced(request_: wire.Request) -> None:
    right = RIGHTS[type(request_)]
    for uid in (OWN, 0, OTHER):
        for greeted in (False, True):
            for recovering in (False, True):
                misplaced = {When.FIRST: greeted, When.GREETED: not greeted, When.ANY: False}[right.when]
                denied = (right.who is Who.CONTROL and uid == OTHER) or (right.who is Who.RECOVERING and not recovering)

                def ask(uid: int = uid, greeted: bool = greeted, recovering: bool = recovering) -> None:
                    permit(request_, uid, own=OWN, greeted=greeted, recovering=recovering)

                if misplaced:
                    with pytest.raises(PeerProtocolError, match="Hello"):
                        ask()
                elif denied:
                    with pytest.raises(Refused) as caught:
                        ask()
                    assert caught.value.status is Status.ACCESS_DENIED
                else:
                    ask()


def test_control_is_for_the_broker_s_user_and_root() -> None:
    control = {kind for kind, right in RIGHTS.items() if right.who is Who.CONTROL}
    assert wire.Stop in control
    assert not control & {wire.GetStatus, wire.Hello, wire.Snapshot}
