"""What turns a request into an answer: the vLLM server with its client, and Transformers.

Heavy libraries are imported where they are used, never when a module here is imported.
"""
