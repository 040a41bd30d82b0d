"""The engines: they run one network on batches, on a CPU or a GPU."""
