"""What turns a request into an answer: the vLLM server and Transformers, and the client of the first.

Heavy libraries are imported where they are used, never when a module here is imported.
"""
