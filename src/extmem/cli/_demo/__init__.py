"""The parts of `extmem demo`: the animation, the tasks of its processes, and the picture of the run."""
