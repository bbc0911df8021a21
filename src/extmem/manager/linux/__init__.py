"""The object manager on Linux: the broker, which this process asks for everything, and starts if there is none."""

import sys

if sys.platform != "linux":
    raise ImportError("the broker runs on Linux only; extmem.manager selects what the system has")
