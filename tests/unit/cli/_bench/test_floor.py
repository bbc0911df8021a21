"""The C code of the benchmarks, on a CUDA driver of a few lines of C that counts what is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from extmem.cli._bench import floor
from extmem.errors import UnsupportedError
from extmem.testing.children import python_environment

DRIVER = r"""
#include <stddef.h>
#include <stdint.h>
#include <string.h>
int living, mapped, imports, failing = -1;
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetUuid_v2(uint8_t *uuid, int device) { memset(uuid, 1, 16); return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &living; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
int cuCtxPushCurrent_v2(void *context) { living++; return 0; }
int cuCtxPopCurrent_v2(void **context) { living--; return 0; }
int cuImportExternalMemory(void) { return 1; }
int cuExternalMemoryGetMappedBuffer(void) { return 1; }
int cuPointerGetAttributes(void) { return 1; }
int cuMemGetAddressRange_v2(void) { return 1; }
int cuMemFree_v2(void) { return 1; }
int cuDestroyExternalMemory(void) { return 1; }
int cuMemAddressReserve(uint64_t *at, size_t size, size_t align, uint64_t hint, uint64_t flags) {
    living++;
    *at = 0x1000000;
    return size == 60 ? 0 : 1;
}
int cuMemAddressFree(uint64_t at, size_t size) { living--; return 0; }
int cuMemImportFromShareableHandle(uint64_t *handle, void *fd, int type) {
    if (imports++ == failing) return 101;
    living++;
    *handle = (uintptr_t)fd;
    return type == 1 ? 0 : 1;
}
int cuMemRelease(uint64_t handle) { living--; return 0; }
int cuMemMap(uint64_t at, size_t size, size_t offset, uint64_t handle, uint64_t flags) {
    living++;
    mapped++;
    return at >= 0x1000000 && at + size <= 0x1000000 + 60 ? 0 : 1;
}
int cuMemUnmap(uint64_t at, size_t size) { living--; return 0; }
int cuMemSetAccess(uint64_t at, size_t size, const int *access, size_t count) {
    return size == 60 && count == 1 && access[0] == 1 && access[1] == 0 && access[2] == 1 ? 0 : 1;
}
"""
PROGRAM = """
import ctypes, sys
from extmem.cli._bench.floor import CudaFloor
loaded = CudaFloor(sys.argv[1], bytes([1]) * 16)
driver = ctypes.CDLL("libcuda.so.1")
number = lambda name: ctypes.c_int.in_dll(driver, name).value
print(loaded.imported_parts([3, 4, 5], [10, 20, 30]) > 0, number("living"), number("mapped"))
ctypes.c_int.in_dll(driver, "failing").value = 5
try:
    loaded.imported_parts([3, 4, 5], [10, 20, 30])
except OSError as error:
    print(error, number("living"), number("mapped"))
loaded.close()
"""


def compiler() -> str:
    """Return a C compiler; the test is skipped without one."""
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if found is None:
        pytest.skip("no C compiler")
    return found


def test_allocations_are_imported_side_by_side_and_all_is_released(tmp_path: Path) -> None:
    source = tmp_path / "driver.c"
    source.write_text(DRIVER)
    driver = str(tmp_path / "libcuda.so.1")
    subprocess.run([compiler(), "-shared", "-fPIC", "-w", "-o", driver, str(source)], check=True, timeout=60)
    library = floor.compile_floor(tmp_path, "cuda_floor.c")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, library],
        env=python_environment({**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == ["True 0 3", "the C code failed: result -101 0 5"], done


def test_the_c_code_refuses_an_unknown_gpu(tmp_path: Path) -> None:
    compiler()
    with pytest.raises(UnsupportedError, match="found no CUDA device"):
        floor.CudaFloor(floor.compile_floor(tmp_path, "cuda_floor.c"), bytes(16))


@pytest.mark.parametrize(("fds", "sizes"), [([1], [2, 3]), ([], [1])])
def test_fds_and_sizes_belong_together(fds: Sequence[int], sizes: Sequence[int]) -> None:
    with pytest.raises(ValueError, match="fds for"):
        floor.CudaFloor.imported_parts(cast("Any", SimpleNamespace()), fds, sizes)
