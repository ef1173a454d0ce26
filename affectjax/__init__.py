"""Multimodal emotion recognition in JAX: UMBEnet, MCR with MulT, and supramodal concepts."""

__version__ = "0.1.0"
