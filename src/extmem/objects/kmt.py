"""KMT numbers, the system-wide names of KMT-shared payloads (B51–B62). Weak: the table holds nothing alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from extmem.objects.entities import Payload
from extmem.objects.status import Refused, Status

__all__ = ["SLOTS", "KmtTable", "bad_number", "number_at"]

_TOP: Final = 0x4000_0000
_TOP_BITS: Final = 0xC000_0000
_LOW_BITS: Final = 0b11_1111
_GLOBAL: Final = 0b00_0010  # the low six bits of a global number; a local one has 0 there (B51)
SLOTS: Final = 1 << 24
"""How many numbers there are: bits 6 to 29 count them."""


class KmtTable:
    """Numbers `index << 6 | 0x40000002`. Starts at a random index and walks forward, so a dead number stays dead for
    long (B62).
    """

    __slots__ = ("_next", "_payloads")

    def __init__(self, random: Callable[[int], int]) -> None:
        self._payloads: dict[int, Payload] = {}
        self._next = random(SLOTS)

    def __len__(self) -> int:
        return len(self._payloads)

    def assign(self, payload: Payload) -> int:
        """A new number for `payload`. Refused INSUFFICIENT_RESOURCES when all of them are alive."""
        if len(self._payloads) == SLOTS:
            raise Refused(
                Status.INSUFFICIENT_RESOURCES,
                f"All {SLOTS} KMT numbers are in use. Free shared memory that nobody needs.",
            )
        while True:
            number = number_at(self._next)
            self._next = (self._next + 1) % SLOTS
            if number not in self._payloads:
                self._payloads[number] = payload
                return number

    def available(self, number: int) -> bool:
        """Whether no payload has that number. Refused INVALID_PARAMETER for one that this table never gives."""
        if not 0 <= number <= 0xFFFF_FFFF or number & (_TOP_BITS | _LOW_BITS) != _TOP | _GLOBAL:
            raise Refused(Status.INVALID_PARAMETER, bad_number(number))
        return number not in self._payloads

    def restore(self, number: int, payload: Payload) -> None:
        """Give `payload` the number it had before; it must be available."""
        self._payloads[number] = payload

    def find(self, number: int) -> Payload:
        """The payload of a live number. Refused INVALID_PARAMETER, with what the number's shape shows (B59, B99)."""
        payload = self._payloads.get(number)
        if payload is None:
            raise Refused(Status.INVALID_PARAMETER, bad_number(number))
        return payload

    def remove(self, number: int) -> None:
        """The number dies."""
        del self._payloads[number]


def number_at(index: int) -> int:
    """The number of one of the `SLOTS` places."""
    return _TOP | index << 6 | _GLOBAL


def bad_number(number: int) -> str:
    """Why no live payload has this number, as its shape shows (B59, B99), and what to do."""
    if number == 0:
        return "The KMT number is 0 (NULL), which is never valid. Pass the number that the exporter got."
    if not 0 < number <= 0xFFFF_FFFF:
        return f"{number:#x} is no KMT number: those have 32 bits. Pass the number as the exporter got it."
    if not number & _TOP_BITS:
        return (
            f"{number:#x} has the shape of an NT handle, not of a KMT number (bits 30 and 31 are clear). "
            "Import it with the NT handle type, in the process that holds it."
        )
    if not number & _LOW_BITS:
        return f"{number:#x} is a KMT handle local to its process (its low six bits are 0). Pass the global number."
    if number & _LOW_BITS != _GLOBAL:
        return f"{number:#x} is no KMT number: the low six bits of a global one are 000010. Pass it unchanged."
    return (
        f"The KMT number {number:#x} is dead: a number owns nothing and ends with the last memory object of its "
        "payload. Keep the exporter's memory alive until the importer has it."
    )
