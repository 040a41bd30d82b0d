"""The doctor: what usually goes wrong with a microscope, a computer and their software, looked at before it does."""
