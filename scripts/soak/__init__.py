"""The long test: `make soak`, or `python -m scripts.soak`. Words on stderr, a JSON list of figures on stdout.

How this works. The parts run one after the other, each in processes of its own with a broker of its own:

- `fuzzing`: the fuzzers of messages and descriptors;
- `using`: threads that use one name or one object (`tests.threads`), operations that signals interrupt
  (`tests.interrupts`), and other users who try to get more than they were granted (`tests.users`);
- `arbitrary`: arbitrary programs of the public API (`tests.arbitrary`), under the Khronos validation layer;
- `killing`: rounds of kill -9 of an exporter, an importer or the broker.

`workers` runs a program as a worker process and counts how it ended: by a signal, with another exit code, or not in
time. `figures` has what the parts count together. `__main__` is the command line; its exit status is 1 where a figure
is out of its bound.
"""
