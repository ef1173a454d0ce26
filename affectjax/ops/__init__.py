"""Pure functions on arrays: attention, dropout, losses, masking."""
