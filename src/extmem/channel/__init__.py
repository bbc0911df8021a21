"""Channels: one name, a ring of payloads, one writer, many readers."""
