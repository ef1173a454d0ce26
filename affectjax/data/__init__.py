"""Records to batches: readers, builders, cleaning, the Grain pipeline and the embedded set."""
