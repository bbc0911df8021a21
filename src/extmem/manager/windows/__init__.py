"""The object manager on Windows: the kernel, through typed tables. See `docs/design/0012-windows-objects.md`."""
