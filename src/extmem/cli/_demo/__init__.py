"""The parts of `extmem demo`: what is drawn, and what its two processes do."""
