"""What tests of programs that share memory need, shipped: everything here is used by extmem's own tests.

::

    children     child processes with a deadline: always killed in the end; a failure shows their output
    conformance  what every device must do, as plain functions that take a function which opens a device
    fake_cuda    a scripted CUDA driver, on which the CUDA device runs without a GPU
    fake_vulkan  a scripted Vulkan driver, on which the Vulkan device runs without any driver
    faults       drivers and connections that fail at the n-th call
    leaks        descriptors, mappings and shared objects, counted before and after
    runtime      a private object manager in a private directory
    strategies   Hypothesis strategies for names, access masks and create infos (needs hypothesis)

Nothing here needs pytest. Import the module that you need: `from extmem.testing import leaks`.
"""
