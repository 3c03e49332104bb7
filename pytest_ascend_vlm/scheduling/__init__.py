"""Scheduling of several models in parallel."""
