"""Handles on Windows: the typed tables of its libraries, and the calls about handles that stand on them."""
