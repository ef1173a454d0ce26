"""From raw files to ArrayRecord on disk, and back to records."""
