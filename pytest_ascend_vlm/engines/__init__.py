"""Engines that answer requests: vLLM, as a server or offline, and Transformers.

No module imports a heavy library (torch, transformers, vllm) at its top, but where it is used.
"""
