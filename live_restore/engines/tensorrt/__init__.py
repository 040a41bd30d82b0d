"""NVIDIA cards, by TensorRT: from a graph and a recipe to plans, and plans run."""
