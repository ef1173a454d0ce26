"""Damaged inputs for every reader and decoder of data; see `__main__`."""
