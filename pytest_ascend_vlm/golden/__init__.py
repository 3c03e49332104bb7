"""Goldens, the recorded answers of the reference: `store` reads and `recorder` writes them."""
