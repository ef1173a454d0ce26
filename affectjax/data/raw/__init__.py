"""Raw data sets: where their files are, and how each layout is read."""
