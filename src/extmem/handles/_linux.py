"""Linux calls that the standard library lacks: kcmp(2), to tell whether two descriptors are one open file."""

from __future__ import annotations

import errno
import os

from extmem.errors import UnsupportedError

__all__ = ["same_open_file"]

_KCMP_FILE = 0
# The syscall number is the architecture's own; where it is not listed we say so rather than guess.
_SYS_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "s390x": 343}


def same_open_file(a: int, b: int) -> bool:
    """kcmp(KCMP_FILE): whether two descriptors of this process refer to one open file description.

    Errors: OSError (EBADF) for a closed descriptor; UnsupportedError where the kernel has no kcmp.
    """
    import ctypes
    import platform

    number = _SYS_KCMP.get(platform.machine())
    if number is None:
        raise UnsupportedError(
            f"cannot compare open files on {platform.machine()}: no kcmp number is known for it; please report it",
            requires_one_of=["kcmp(2)"],
        )
    pid = os.getpid()
    answer = ctypes.CDLL(None, use_errno=True).syscall(
        ctypes.c_long(number),
        ctypes.c_long(pid),
        ctypes.c_long(pid),
        ctypes.c_long(_KCMP_FILE),
        ctypes.c_ulong(a),
        ctypes.c_ulong(b),
    )
    if answer >= 0:
        return bool(answer == 0)
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EPERM):
        raise UnsupportedError(
            f"this kernel refuses kcmp(2) ({os.strerror(code)}), the only way to compare these descriptors by object",
            requires_one_of=["CONFIG_KCMP"],
        )
    raise OSError(code, os.strerror(code))
