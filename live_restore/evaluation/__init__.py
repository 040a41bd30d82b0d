"""Evaluation: how good a model package is on held-out pairs, in figures, in a report, and whether it may be promoted."""
