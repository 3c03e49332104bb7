"""The criteria as pytest tests: one mixin for each group, joined in `conformance.VLMConformance`.

This module imports nothing, because the plugin imports parts of the package in every pytest run,
even in projects that do not use it.
"""
