"""Architectures: pure Flax modules, no losses and no input or output."""
