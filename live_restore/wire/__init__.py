"""The wire between the acquisition, the restore process and the viewers."""
