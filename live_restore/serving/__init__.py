"""The rooms of the restore process: a run's state, its models, its three threads, what viewers see."""
