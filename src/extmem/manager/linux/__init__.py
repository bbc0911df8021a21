"""The object manager on Linux: the broker, which this process asks for everything, and starts if there is none."""
