"""Limits: how little light and how much blur a model package bears, measured on high-light images."""
