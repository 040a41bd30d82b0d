"""Small programs, each of which loads one runtime and restores one image whenever it is told to, in any Python."""
