"""The simulated microscope: rendered specimens and a camera with exact noise."""
