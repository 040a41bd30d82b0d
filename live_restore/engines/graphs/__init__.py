"""What is done to a network before any engine sees it: counts in and out, 16 bits, bytes, attention over tiles."""
