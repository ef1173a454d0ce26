"""What a run reached, as tables, figures and one HTML page."""
