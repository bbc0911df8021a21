"""Handles on Windows: the typed function tables of its libraries, and the calls that use them."""
