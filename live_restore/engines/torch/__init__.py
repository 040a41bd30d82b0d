"""PyTorch, from the same ONNX file: on a CPU, or on a card where TensorRT is not installed."""
