"""Declarations: models, thresholds, cases, data sets and published figures."""
