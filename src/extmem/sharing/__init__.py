"""What travels between processes: payloads, how they are shared, and their self-description. Pure."""
