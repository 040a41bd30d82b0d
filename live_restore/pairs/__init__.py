"""Pairs of low and high-light images of one field: what is measured on them, and which are good enough to learn from."""
