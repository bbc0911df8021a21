"""SwiftShader, the second software driver of the Vulkan tests, which scripts/setup.sh unpacks from a Debian package.

With `--swiftshader` the loader finds no other driver, in this process and in all that it starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

__all__ = ["ENVIRONMENT", "ICD", "MISSING", "OnSwiftShader", "installed"]

ICD = Path(__file__).parents[1] / ".swiftshader" / "usr" / "lib" / "chromium" / "vk_swiftshader_icd.json"
"""The file by which the loader finds the driver."""
ENVIRONMENT: Mapping[str, str] = {"VK_DRIVER_FILES": str(ICD), "VK_ICD_FILENAMES": str(ICD)}
"""Variables that make it the only driver, for all loaders: the second variable is the older name of the first."""
MISSING = "no SwiftShader here: scripts/setup.sh dev unpacks it"


def installed() -> bool:
    """Return whether it is installed."""
    return ICD.exists() and ICD.with_name("libvk_swiftshader.so").exists()


class OnSwiftShader:
    """The pytest plugin of `--swiftshader`."""

    def __init__(self) -> None:
        self._before = {name: os.environ.get(name) for name in ENVIRONMENT}
        os.environ.update(ENVIRONMENT)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Skip every test where it is missing, because there is no driver at all."""
        if not installed():
            pytest.skip(MISSING)

    def pytest_unconfigure(self) -> None:
        """Restore the environment."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
