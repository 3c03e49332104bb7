"""Checkpoints in OpenGVLab's own format (`internvl_chat`: InternVL2, 2.5, 3 and 3.5).

They are loaded into Transformers' `InternVLForConditionalGeneration`, which computes the same.
OpenGVLab's remote code does not run under current versions of Transformers, and is not needed.
"""

from .config import is_internvl_chat
from .model import load_model, load_processor

__all__ = ["is_internvl_chat", "load_model", "load_processor"]
