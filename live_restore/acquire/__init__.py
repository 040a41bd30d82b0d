"""What runs inside the acquisition: for now, the simulated specimen."""
