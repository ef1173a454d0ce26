"""One file a system: its model, its stages, its loss and its metrics, found by module name."""
