"""live_restore: live restoration of low-light microscopy with CARE and RCAN, while the microscope runs."""

__version__ = "0.1.0"
