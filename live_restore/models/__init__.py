"""Model packages: what a network is, where its weights came from, how it is imported."""
