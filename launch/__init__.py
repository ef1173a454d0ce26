"""Launchers: the demo, and several processes on one machine."""
