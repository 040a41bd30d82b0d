"""How far an engine is from float32 on real images, measured once and kept."""
