"""The patches of a picture, from the number of its tokens."""

from __future__ import annotations


def patch_grid(tokens: int, width: int, height: int) -> tuple[int, int] | None:
    """Rows and columns of a picture's patches, or None if the tokens are no such grid.

    Patches are square, so columns and rows are the picture's width and height in one unit, each
    rounded to a whole number in the same way. Tokens of tiles, of a thumbnail, or of separators do
    not have this shape.

    Args:
        tokens: number of the picture's tokens.
        width: width of the picture, pixels.
        height: height of the picture, pixels.
    """
    for rows in range(1, tokens + 1):
        columns, rest = divmod(tokens, rows)
        if not rest and _is_scaled(rows, columns, height / width):
            return rows, columns
    return None


def _is_scaled(rows: int, columns: int, aspect: float) -> bool:
    """True if some width in patches, times the aspect, rounds to these rows and columns.

    Processors round to the nearest number, or down if the picture is too large, or up if it is too
    small: the three offsets.
    """
    return any(
        max(columns + low, (rows + low) / aspect)
        < min(columns + low + 1, (rows + low + 1) / aspect)
        for low in (-0.5, 0.0, -1.0)
    )
