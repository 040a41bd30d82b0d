"""The way of a batch through a card: streams, pinned memory, graphs. It knows neither TensorRT nor torch."""
