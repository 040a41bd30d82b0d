"""What this machine built, sealed, and where it lies."""
