"""The object manager as a Linux process: the broker, its wire format, and the client that every process has."""

import sys

if sys.platform != "linux":
    raise ImportError("the broker runs on Linux only; extmem.manager selects what the system has")
