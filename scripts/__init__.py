"""Commands of the developers: `python -m scripts.soak`."""
