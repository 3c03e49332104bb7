"""The texts of tokens, from a checkpoint's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..observation.answers import TokenText


@dataclass(frozen=True)
class TextTokenizer:
    """A checkpoint's tokenizer.

    Attributes:
        tokenizer: the tokenizer, as an object of the library `tokenizers`.
    """

    tokenizer: Any

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, special tokens included."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def kept(self, text: str) -> str:
        """The lines of a text that the tokens of the line keep; a tokenizer may normalize others.

        It is empty if the tokens of all these lines together do not keep them.
        """
        lines = "\n".join(filter(self._keeps, text.split("\n")))
        return lines if self._keeps(lines) else ""

    def _keeps(self, text: str) -> bool:
        return self.decode(self.tokenizer.encode(text, add_special_tokens=False).ids) == text


def text_tokenizer(checkpoint: Path) -> TextTokenizer | None:
    """A checkpoint's tokenizer; None if it has no `tokenizer.json`, or none can be read here."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    path = checkpoint / "tokenizer.json"
    return TextTokenizer(Tokenizer.from_file(str(path))) if path.is_file() else None


def token_number(token: int) -> str:
    """The text for a token of which only the id is known."""
    return f"token {token}"


def token_texts(tokenizer: TextTokenizer | None) -> TokenText:
    """The texts of a checkpoint's tokens; their numbers if it has no `tokenizer.json`.

    A token that is a part of a character has the text U+FFFD.
    """
    if tokenizer is None:
        return token_number

    def text(token: int) -> str:
        return tokenizer.decode([token]) or token_number(token)

    return text
