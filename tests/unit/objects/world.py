"""A small world for tests of the object manager: two processes of one user, one of another, one of uid 0."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from extmem import objects
from extmem.objects import Exported, Identity, Limits, Refused, Share, Status, Token
from tests.described_manager import DescribedManager

ALICE = Token(1000, 1000, frozenset({27}))
EVE = Token(2000, 2000)
ROOT = Token(0, 0)
READ_WRITE = 0x8000_0001  # DXGI_SHARED_RESOURCE_READ | _WRITE


class World:
    """`a` and `b` are processes of one user, `eve` of another, `root` of uid 0."""

    def __init__(self, **options: Any) -> None:
        self.random = random.Random(7)
        self.m = DescribedManager(random=self.random.randrange, **options)
        self.a = self.m.attach(ALICE, 100)
        self.b = self.m.attach(ALICE, 200)
        self.eve = self.m.attach(EVE, 300)
        self.root = self.m.attach(ROOT, 400)
        self._inode = 0

    def identity(self, handles: int = 1) -> Identity:
        """The identity of a new payload with so many fds."""
        self._inode += handles
        return tuple((1, self._inode - number) for number in range(handles))

    def export(self, name: str | None = None, *, by: int | None = None, **changes: Any) -> Exported:
        """An NT export by process `a` with everything at its most usual."""
        options: dict[str, Any] = {
            "share": Share.NT,
            "name": name,
            "access": objects.GENERIC_ALL,
            "sddl": None,
            "inherit": False,
        } | changes
        identity = options.pop("identity", None) or self.identity()
        descriptor = options.pop("descriptor", b"descriptor")
        return self.m.export(self.a if by is None else by, identity, descriptor, **options)

    def export_kmt(self, **changes: Any) -> tuple[Exported, int]:
        """A KMT export by process `a`, and its number."""
        exported = self.export(**({"share": Share.KMT} | changes))
        assert exported.kmt is not None
        return exported, exported.kmt

    def handle(self, name: str | None = None, **changes: Any) -> int:
        """A handle in process `a`, to a fresh export."""
        return self.m.get_handle(self.a, self.export(name, **changes).reference)

    def granted(self, process: int, handle: int) -> int:
        return self.m.handle_info(process, handle).granted

    def all_gone(self) -> bool:
        """After everybody has left, and the time of what they sent is over, nothing is left."""
        for process in self.m.processes():
            self.m.detach(process)
        for ticket in list(self.m._tickets):
            self.m.expire(ticket)
        return not any(self.m.counts().values())


@contextmanager
def refused(status: Status, *words: str) -> Iterator[None]:
    """The block is refused with `status`, in a full sentence that has all of `words`."""
    with pytest.raises(Refused) as caught:
        yield
    refusal = caught.value
    assert refusal.status is status, str(refusal)
    assert refusal.detail[0].isupper() or refusal.detail[0] in "-0123456789'\"", refusal.detail
    assert refusal.detail.endswith("."), refusal.detail
    for word in words:
        assert word in refusal.detail, f"{word!r} is not in: {refusal.detail}"


def small(**limits: int) -> World:
    return World(limits=Limits(**limits))
