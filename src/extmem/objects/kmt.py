"""KMT numbers, the system-wide names of KMT-shared payloads (B51–B62). The table does not keep a payload alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from extmem.objects.status import Refused, Status

if TYPE_CHECKING:
    from extmem.objects.entities import Payload

__all__ = ["SLOTS", "KmtTable", "bad_number", "number_at"]

_TOP: Final = 0x4000_0000
_TOP_BITS: Final = 0xC000_0000
_LOW_BITS: Final = 0b11_1111
_GLOBAL: Final = 0b00_0010  # the low six bits of a global number; a local one has 0 there (B51)
SLOTS: Final = 1 << 24
"""The number of possible KMT numbers, counted by bits 6 to 29."""


class KmtTable:
    """The assigned numbers, `index << 6 | 0x40000002`.

    Indices begin at a random one and increase, so that the number of an ended payload is not reused for long (B62).
    """

    __slots__ = ("_next", "_payloads")

    def __init__(self, random: Callable[[int], int]) -> None:
        self._payloads: dict[int, Payload] = {}
        self._next = random(SLOTS)

    def __len__(self) -> int:
        return len(self._payloads)

    def assign(self, payload: Payload) -> int:
        """Return a new number for `payload`. Refused INSUFFICIENT_RESOURCES when all are in use."""
        if len(self._payloads) == SLOTS:
            raise Refused(
                Status.INSUFFICIENT_RESOURCES,
                f"All {SLOTS} KMT numbers are in use. Free shared memory that is not needed.",
            )
        while True:
            number = number_at(self._next)
            self._next = (self._next + 1) % SLOTS
            if number not in self._payloads:
                self._payloads[number] = payload
                return number

    def available(self, number: int) -> bool:
        """Return whether the number is free. Refused INVALID_PARAMETER for one that this table cannot assign."""
        if not 0 <= number <= 0xFFFF_FFFF or number & (_TOP_BITS | _LOW_BITS) != _TOP | _GLOBAL:
            raise Refused(Status.INVALID_PARAMETER, bad_number(number))
        return number not in self._payloads

    def restore(self, number: int, payload: Payload) -> None:
        """Give `payload` the number that it had before, which must be available."""
        self._payloads[number] = payload

    def find(self, number: int) -> Payload:
        """Return the payload with a number.

        Refused INVALID_PARAMETER, with the reason that its bits show (B59, B99).
        """
        payload = self._payloads.get(number)
        if payload is None:
            raise Refused(Status.INVALID_PARAMETER, bad_number(number))
        return payload

    def remove(self, number: int) -> None:
        """Remove a number."""
        del self._payloads[number]


def number_at(index: int) -> int:
    """Return the KMT number of an index below `SLOTS`."""
    return _TOP | index << 6 | _GLOBAL


def bad_number(number: int) -> str:
    """Return why no payload has this number, as its bits show (B59, B99), and the remedy."""
    if number == 0:
        return "The KMT number is 0 (NULL), which is never valid. Pass the number that the exporter got."
    if not 0 < number <= 0xFFFF_FFFF:
        return f"{number:#x} is not a KMT number, which has 32 bits. Pass the number as the exporter got it."
    if not number & _TOP_BITS:
        return (
            f"{number:#x} has the shape of an NT handle, not of a KMT number (bits 30 and 31 are clear). "
            "Import it with the NT handle type, in the process that holds it."
        )
    if not number & _LOW_BITS:
        return f"{number:#x} is a KMT handle local to its process (its low six bits are 0). Pass the global number."
    if number & _LOW_BITS != _GLOBAL:
        return f"{number:#x} is not a KMT number: the low six bits of a global one are 000010. Pass it unchanged."
    return (
        f"The KMT number {number:#x} is dead: a number does not keep its payload alive, and ends with the payload's "
        "last reference. Keep the exporter's object open until the importer has it."
    )
