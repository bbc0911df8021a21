"""The parts of `extmem demo`: the animation, and the tasks of its two processes."""
