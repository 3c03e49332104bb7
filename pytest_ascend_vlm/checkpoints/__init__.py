"""Where weights are found, and their digest."""
