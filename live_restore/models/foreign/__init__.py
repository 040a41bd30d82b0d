"""Models that other software wrote: one importer per format, and the readers they share."""
