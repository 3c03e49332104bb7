"""The texts of single tokens, from a checkpoint's tokenizer."""

from __future__ import annotations

from pathlib import Path

from ..observation.answers import TokenText


def token_number(token: int) -> str:
    """The text for a token of which only the id is known."""
    return f"token {token}"


def token_texts(checkpoint: Path) -> TokenText:
    """The texts of a checkpoint's tokens; their numbers if it has no `tokenizer.json`.

    A token that is a part of a character has the text U+FFFD.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return token_number
    path = checkpoint / "tokenizer.json"
    if not path.is_file():
        return token_number
    tokenizer = Tokenizer.from_file(str(path))

    def text(token: int) -> str:
        return str(tokenizer.decode([token], skip_special_tokens=False)) or token_number(token)

    return text
