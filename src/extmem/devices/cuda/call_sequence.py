"""Several calls of CUDA in one call of C code, by a small function in machine code.

How this works. A wait or a signal of a stream is two to four calls of CUDA, most of which take less than a microsecond.
Each call from Python costs as much again, gives up the GIL, and allows a signal handler to run after it. So the calls
for one semaphore on one stream are a `Program`, written once. The function makes its calls one after the other, up to
the first that fails. Only the value changes, and the record of the host function (`host_function`). Both are arguments
of the function: a signal handler that uses the same program cannot mix them up.

The program, in words of 8 bytes::

    0                 1                  2           3..6        7             8 ...
    +-----------------+------------------+-----------+-----------+-------------+----------
    | u64 *value_slot | u64 *record_slot | function  | arguments | u32 *guard  | the next
    +-----------------+------------------+-----------+-----------+-------------+----------

It ends with a 0 in place of a function. After a call that succeeded, a guard that is not 0 must point to a 0, which is
the answer of cuStreamIsCapturing. The function returns the CUresult of the last call (900 for a guard) and, in the
upper half, the number of calls that succeeded. It sets `given` of the record first, and `done` if a call fails.

`tests/unit/devices/cuda/test_call_sequence.py` executes the listing of its machine. Where the system refuses executable
memory there are no programs, and Python makes the calls one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from extmem.devices.cuda import machine_code
from extmem.errors import UnsupportedError
from extmem.vk.abi import ffi

__all__ = ["CAPTURING", "Program", "runner"]

CAPTURING: Final = 900
"""CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: what the function returns for a guard."""

_X86_64: Final = bytes.fromhex(
    "f30f1efa"  #    endbr64
    "53"  #    push rbx
    "4154"  #    push r12
    "4155"  #    push r13
    "4889fb"  #    mov rbx, rdi
    "4989d5"  #    mov r13, rdx
    "4531e4"  #    xor r12d, r12d
    "488b07"  #    mov rax, qword [rdi]
    "488930"  #    mov qword [rax], rsi
    "4885d2"  #    test rdx, rdx
    "740f"  #    je 1f
    "488b4708"  #    mov rax, qword [rdi + 8]
    "488910"  #    mov qword [rax], rdx
    "48c7422001000000"  #    mov qword [rdx + 32], 1
    "488b4310"  # 1: mov rax, qword [rbx + 16]
    "4885c0"  #    test rax, rax
    "743f"  #    je 4f
    "488b7b18"  #    mov rdi, qword [rbx + 24]
    "488b7320"  #    mov rsi, qword [rbx + 32]
    "488b5328"  #    mov rdx, qword [rbx + 40]
    "488b4b30"  #    mov rcx, qword [rbx + 48]
    "ffd0"  #    call rax
    "85c0"  #    test eax, eax
    "751c"  #    jne 3f
    "488b5338"  #    mov rdx, qword [rbx + 56]
    "4885d2"  #    test rdx, rdx
    "740a"  #    je 2f
    "b884030000"  #    mov eax, 900
    "833a00"  #    cmp dword [rdx], 0
    "7509"  #    jne 3f
    "4883c330"  # 2: add rbx, 48
    "41ffc4"  #    inc r12d
    "ebc5"  #    jmp 1b
    "4d85ed"  # 3: test r13, r13
    "7408"  #    je 4f
    "49c7451801000000"  #    mov qword [r13 + 24], 1
    "49c1e420"  # 4: shl r12, 32
    "89c0"  #    mov eax, eax
    "4c09e0"  #    or rax, r12
    "415d"  #    pop r13
    "415c"  #    pop r12
    "5b"  #    pop rbx
    "c3"  #    ret
)
_AARCH64: Final = bytes.fromhex(
    "5f2403d5"  #    bti c
    "fd7bbda9"  #    stp x29, x30, [sp, #-48]!
    "f35301a9"  #    stp x19, x20, [sp, #16]
    "f51300f9"  #    str x21, [sp, #32]
    "fd030091"  #    mov x29, sp
    "f30300aa"  #    mov x19, x0
    "f40302aa"  #    mov x20, x2
    "150080d2"  #    mov x21, #0
    "030040f9"  #    ldr x3, [x0]
    "610000f9"  #    str x1, [x3]
    "a20000b4"  #    cbz x2, 1f
    "030440f9"  #    ldr x3, [x0, #8]
    "620000f9"  #    str x2, [x3]
    "230080d2"  #    mov x3, #1
    "431000f9"  #    str x3, [x2, #32]
    "640a40f9"  # 1: ldr x4, [x19, #16]
    "00008052"  #    mov w0, #0
    "040200b4"  #    cbz x4, 4f
    "608641a9"  #    ldp x0, x1, [x19, #24]
    "628e42a9"  #    ldp x2, x3, [x19, #40]
    "80003fd6"  #    blr x4
    "20010035"  #    cbnz w0, 3f
    "631e40f9"  #    ldr x3, [x19, #56]
    "830000b4"  #    cbz x3, 2f
    "630040b9"  #    ldr w3, [x3]
    "80708052"  #    mov w0, #900
    "83000035"  #    cbnz w3, 3f
    "73c20091"  # 2: add x19, x19, #48
    "b5060091"  #    add x21, x21, #1
    "f2ffff17"  #    b 1b
    "740000b4"  # 3: cbz x20, 4f
    "230080d2"  #    mov x3, #1
    "830e00f9"  #    str x3, [x20, #24]
    "e003002a"  # 4: mov w0, w0
    "008015aa"  #    orr x0, x0, x21, lsl #32
    "f51340f9"  #    ldr x21, [sp, #32]
    "f35341a9"  #    ldp x19, x20, [sp, #16]
    "fd7bc3a8"  #    ldp x29, x30, [sp], #48
    "c0035fd6"  #    ret
)
_RUN: Final = "uint64_t(*)(uintptr_t, uint64_t, uintptr_t)"
_HEADER, _STEP, _ARGUMENTS = 2, 6, 4

Call = tuple[int, Sequence[int], int]
"""A function's address, up to four arguments, and the address of its guard, or 0."""


@lru_cache(maxsize=1)
def runner() -> Any:
    """The function: it takes the address of a program, the value and the address of the record (0 for none).

    None where the machine or the system allows no machine code.
    """
    try:
        return ffi.cast(_RUN, machine_code.load({"x86_64": _X86_64, "aarch64": _AARCH64}, "streams signal values"))
    except UnsupportedError:
        return None


class Program:
    """The calls of one wait or signal. It owns its memory."""

    __slots__ = ("_memory", "address", "done")

    def __init__(self, calls: Sequence[Call], value: int | tuple[int, int], record: tuple[int, int] | None) -> None:
        """value: where the value is stored: an address, or the numbers of a call and of its argument.

        record: the call and the argument that are the address of the record.
        """
        memory = self._memory = ffi.new("uint64_t[]", _HEADER + _STEP * len(calls) + 1)
        self.address = int(ffi.cast("uintptr_t", memory))
        self.done = len(calls) << 32
        """What the function returns if all calls succeed."""
        memory[0] = value if isinstance(value, int) else self._slot(*value)
        memory[1] = self._slot(*record) if record is not None else 0
        for index, (function, arguments, guard) in enumerate(calls):
            at = _HEADER + _STEP * index
            step = [function, *arguments, *[0] * (_ARGUMENTS - len(arguments)), guard]
            memory[at : at + _STEP] = step

    def _slot(self, call: int, argument: int) -> int:
        return self.address + 8 * (_HEADER + _STEP * call + 1 + argument)
