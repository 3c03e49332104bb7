"""Finds checkpoints and computes their digests."""
