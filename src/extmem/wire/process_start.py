"""The start time of a process, which distinguishes it from a later process with the same pid (Linux).

On Windows `extmem.manager.start_time` is the creation time that the kernel reports; on systems without /proc it is 0.
"""

from __future__ import annotations

__all__ = ["start_time"]


def start_time(pid: int) -> int:
    """Return the start time of the process in clock ticks since boot; 0 if it does not exist or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return 0
    # The name in parentheses may contain any character; the fields follow the last parenthesis.
    fields = text[text.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
