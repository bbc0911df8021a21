"""Linux calls that the standard library lacks: kcmp(2), which compares the open files of two file descriptors."""

from __future__ import annotations

import errno
import os

from extmem.errors import UnsupportedError
from extmem.owning import late_imports

__all__ = ["same_open_file"]

_KCMP_FILE = 0
# The system call number depends on the architecture. For an architecture that is not listed, an error is raised.
_SYS_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "s390x": 343}


def same_open_file(a: int, b: int) -> bool:
    """Return whether two file descriptors of this process refer to one open file description: kcmp(KCMP_FILE).

    Errors: OSError (EBADF) for a closed file descriptor; UnsupportedError if the kernel has no kcmp.
    """
    with late_imports():
        import ctypes
        import platform

    number = _SYS_KCMP.get(platform.machine())
    if number is None:
        raise UnsupportedError(
            f"cannot compare open files on {platform.machine()}: its kcmp system call number is not known; please "
            "report it",
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
            f"this kernel refuses kcmp(2) ({os.strerror(code)}), the only call that compares the open files of these "
            "descriptors",
            requires_one_of=["CONFIG_KCMP"],
        )
    raise OSError(code, os.strerror(code))
