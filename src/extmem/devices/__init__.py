"""Backends: what allocates, exports, imports and maps memory. `backend` defines what one is."""
