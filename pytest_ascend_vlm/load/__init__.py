"""Load generators: they send many requests at a time and measure how the server answers."""
