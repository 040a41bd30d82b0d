"""The geometry of a network, read off its ONNX graph."""
