"""affect_synth: a talking cartoon face with a voice and a sentence, drawn by code from a seed."""
