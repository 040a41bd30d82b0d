"""Training: from folders of pairs to a model package, its held-out scores and its report."""
