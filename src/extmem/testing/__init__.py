"""What tests of programs that share memory need, shipped: everything here is used by extmem's own tests.

::

    children     other processes, on a lead: a deadline, killed for sure, their output when they fail
    conformance  what every device must do, as plain functions over a maker of devices
    fake_cuda    a CUDA driver that follows a script, over which the CUDA device runs without a GPU
    fake_vulkan  a Vulkan driver that follows a script, over which the Vulkan device runs without any driver
    faults       drivers and connections that fail at the n-th call
    leaks        descriptors, mappings and shared objects, counted before and after
    runtime      an object manager of one's own in a directory of one's own
    strategies   Hypothesis strategies for names, access masks and create infos (needs hypothesis)

Nothing here needs pytest. Import the module that you need: `from extmem.testing import leaks`.
"""
