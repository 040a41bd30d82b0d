"""The commands of the command line, room by room; `live_restore.cli` puts them together."""
