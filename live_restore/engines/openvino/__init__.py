"""The CPU, by OpenVINO: graphs rewritten, int8, results without fresh pages."""
