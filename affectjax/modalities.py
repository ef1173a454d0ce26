"""The modality names, in the order in which they stand everywhere."""

MODALITIES = ("text", "audio", "vision")
