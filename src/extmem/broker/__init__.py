"""The object manager as a Linux process: the broker, its wire format, and the client that every process has."""
