"""Address ranges of the fake's device memory: real ones, so that views of it can be looked at. Picked here, once."""

from __future__ import annotations

import sys

__all__ = ["Span", "place", "reserve"]

if sys.platform == "win32":
    from extmem.testing.fake_cuda._views import Span, place, reserve
else:
    from extmem.testing.fake_cuda._mappings import Span, place, reserve
