"""Kills runs at random moments and compares what comes of them, see `tests/faults/__main__.py`."""
