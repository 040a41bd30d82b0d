"""The networks themselves, in torch (extra `train`)."""
