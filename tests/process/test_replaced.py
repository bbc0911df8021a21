"""A name that is replaced while it is opened, also when its publisher is killed: old or new, whole, never a mix."""

from __future__ import annotations

import pytest

import extmem
from extmem.testing.children import Peer

pytestmark = [
    pytest.mark.linux_only("the Windows kernel's names belong to one object"),
    pytest.mark.slow("kills publishers while a name is opened"),
]
PUBLISH = """
import extmem, numpy
def publish(first):
    # Version n has n % 7 + 1 arrays, whose elements are all n.
    kept = None
    number = first
    while True:
        tree = {f'w{k}': numpy.full(500 + number % 50, number) for k in range(number % 7 + 1)}
        new = extmem.share(tree, 'versions', replace=True, metadata={'number': number})
        if kept is not None:
            kept.close()
        kept = new
        number += 1
"""
ROUNDS = 12
OPENINGS = 60


def whole(opened: extmem.DeviceMemory) -> int:
    """Check that it is one version. Return its number."""
    arrays: dict[str, list[int]] = {name: part.read().tolist() for name, part in opened.items()}  # type: ignore[attr-defined]
    number = int(opened.metadata["number"])  # type: ignore[attr-defined]
    assert len(arrays) == number % 7 + 1
    assert all(values == [number] * (500 + number % 50) for values in arrays.values())
    return number


@pytest.mark.timeout(300)
def test_old_or_new_and_never_a_mix() -> None:
    pytest.importorskip("numpy", reason="NumPy is not installed")
    last, seen = 0, 0
    with extmem.share(b"there is always one", "versions there"):
        for _ in range(ROUNDS):
            with Peer() as publisher:
                publisher(PUBLISH)
                publisher.start(f"publish({last + 1})")
                held = extmem.open("versions", timeout=60)
                for _ in range(OPENINGS):
                    try:
                        opened = extmem.open("versions", timeout=60)
                    finally:
                        first = whole(held)
                        held.close()
                    held = opened
                    number = whole(held)
                    assert number >= first >= last
                    seen += number != first
                    last = number
                publisher.kill()
                assert whole(held) == last, "what is open outlives its publisher"
                last += 1_000  # others may have been published after it
                held.close()
    assert seen > ROUNDS, "nothing was replaced meanwhile"
