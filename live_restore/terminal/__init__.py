"""The terminal: what the parts report, drawn with rich. It decides nothing."""
