"""The criteria as pytest tests: one mixin per concern, joined in `conformance.VLMConformance`.

Nothing is imported here: the plugin uses parts of this package in every run of a project that
merely has it installed.
"""
