"""Restoration: tiles, intensities, engines. Pure: no sockets, no clocks, no files, no model packages."""
