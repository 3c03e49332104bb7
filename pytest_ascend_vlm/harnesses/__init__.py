"""Evaluation harnesses, and the data sets that they know."""
