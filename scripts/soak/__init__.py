"""The long test: `make soak`, or `python -m scripts.soak`. It prints messages on stderr and a JSON list on stdout.

How this works. The parts run one after the other, each in processes of its own with a broker of its own:

- `fuzzing`: the fuzzers of messages, descriptors and timeline pages;
- `using`: threads that use one name or one object (`tests.threads`), methods that signals interrupt
  (`tests.interrupts`), and other users who try to get more rights than they were granted (`tests.users`);
- `arbitrary`: arbitrary programs of the public API (`tests.arbitrary`), under the Khronos validation layer;
- `killing`: rounds of kill -9 of an exporter, an importer or the broker;
- `waiting`: rounds of waits for a timeline, with kill -9 of its creator, its signaler, its waiter or the broker;
- `changing`: an array that one process updates in place while another reads it.

`workers` runs a program as a worker process and counts how it ended: by a signal, with an exit code, or not in time.
`figures` contains the figures, and the counts over all parts. `__main__` is the command line; its exit status is 1 if a
figure misses its bound.
"""
