"""The broker's wire format: messages, their bytes, and the one file that passes file descriptors (`transport`).

Both ends speak it, neither owns it. `docs/wire.md` is the normative text.
"""

from __future__ import annotations

from extmem.wire.codec import *  # noqa: F403  # it has an __all__
