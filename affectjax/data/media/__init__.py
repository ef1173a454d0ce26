"""Decoding of video, sound and images, and face crops."""
