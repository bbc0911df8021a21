"""What `extmem bench` measures: each figure against an alternative that runs in the same run."""
