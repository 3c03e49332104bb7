"""Load generators: who asks much at a time."""
