"""Transformers: the model and the reference engine made of it."""
