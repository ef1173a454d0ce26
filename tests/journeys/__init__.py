"""Ways that somebody goes with the package, from end to end."""
