"""Devices at driver level: what allocates, exports, imports and maps memory. `base` says what a device is."""
