"""Image files that the served model reads, each beside the picture that it shows."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..observation.answers import Refusal

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from ..engines.client import Client
    from ..engines.file_server import FileServer
    from ..engines.formats import Format
    from ..engines.messages import Part
    from ..observation.numerics import Forced
    from ..observation.reading import Reading
    from ..spec.case import Case
    from .goldens import Goldens


CASE = "size/odd"
"""The case whose picture becomes files: a coloured one, with sides that need resizing."""


@dataclass(frozen=True)
class ImageFiles:
    """Image files that the served model reads. Every request forces one answer.

    It is cold, except for those of `read_replaced`.

    Attributes:
        client: the client of the served model.
        golden: the references.
        case: a case with one coloured picture; its golden's answer is forced.
        directory: a directory for the files.
    """

    client: Client
    golden: Goldens
    case: Case
    directory: Path
    _known: dict[object, Forced] = field(default_factory=dict)

    def read(self, of: Format) -> Reading:
        """The picture as a file of a format.

        Raises:
            GoldenError: the golden is missing or invalid.
            PreconditionError: the server returns no prompt log-probabilities, or the same ones for
                a blank image.
            ServerError: the server refused an RGB PNG file, or died.
        """
        from ..criteria.formats import agrees
        from ..engines.cold import cold_part
        from ..engines.formats import opened, shown

        data = of.encode(self.picture)
        case = self._case(data, of.suffix)
        reading = self._reading(shown(opened(data)), lambda: self._ask(case, cold_part))
        if agrees(reading):
            return reading
        misread = {name: self._scores(view(opened(data))) for name, view in of.mistakes.items()}
        return dataclasses.replace(reading, mistakes=misread)

    def read_at(self, url: str) -> Reading:
        """The picture as a PNG file at a URL.

        Raises:
            GoldenError, PreconditionError, ServerError: as for `read`.
        """
        from ..engines.cold import cold_part_at

        return self._reading(self.picture, lambda: self._ask(self.case, cold_part_at(url)))

    def read_replaced(self, files: FileServer) -> Reading:
        """The picture as a PNG file at a URL that had a blank image a moment ago.

        The requests have no `uuid`, so that a server decides itself what is in its caches.

        Raises:
            GoldenError, PreconditionError, ServerError: as for `read`.
        """
        from ..criteria.formats import agrees
        from ..engines.formats import PNG

        def at_url(part: Part) -> Part:
            return {**part, "image_url": {"url": files.url}}

        blank, later = _blank(self.picture), files.data
        files.data = PNG.encode(blank)
        before = self._ask(self.case, at_url)
        files.data = later
        reading = self._reading(self.picture, lambda: self._ask(self.case, at_url))
        reading = dataclasses.replace(reading, is_cold=False)
        if isinstance(before, Refusal):
            return dataclasses.replace(reading, file=before)
        if agrees(reading):
            return reading
        earlier = {"the image that the URL had before is read": self._scores(blank)}
        return dataclasses.replace(reading, mistakes=earlier)

    @property
    def picture(self) -> Picture:
        """The case's picture."""
        from PIL import Image

        with Image.open(self.case.images[0]) as image:
            return image.convert("RGB")

    @property
    def cold_png(self) -> bytes:
        """The picture as a PNG file that no cache contains."""
        from ..engines.cold import new_salt, with_comment
        from ..engines.formats import PNG

        return with_comment(PNG.encode(self.picture), new_salt())

    def _reading(self, picture: Picture, ask: Callable[[], Forced | Refusal]) -> Reading:
        from ..criteria.comparison import own_error
        from ..criteria.formats import require_sight
        from ..engines.vllm.metrics import measure
        from ..observation.reading import Reading

        scores, own = self._scores(picture), own_error(self.golden.numerics(self.case))
        require_sight(self._scores(self.picture), self._scores(_blank(self.picture)), own)
        file, counted = measure(self.client.endpoint, ask)
        return Reading(file, scores, own, counted.caches)

    def _scores(self, picture: Picture) -> Forced:
        """The scores for a picture as an RGB PNG file; each picture is asked once."""
        from ..engines.formats import PNG

        key = picture.size, picture.tobytes()
        if key not in self._known:
            case = self._case(PNG.encode(picture), PNG.suffix)
            self._known[key] = self.client.force(case, *self._answer)
        return self._known[key]

    def _ask(self, case: Case, change: Callable[[Part], Part]) -> Forced | Refusal:
        with self.client.disposable() as other:  # a refused file may cost the connection
            return other.ask_forced(case, *self._answer, change)

    @property
    def _answer(self) -> tuple[str, tuple[int, ...]]:
        """The text and the tokens of the answer that is forced."""
        return self.golden(self.case).text, self.golden.numerics(self.case).token_ids

    def _case(self, data: bytes, suffix: str) -> Case:
        """The case with another file in place of its image."""
        path = self.directory / f"{hashlib.sha256(data).hexdigest()}.{suffix}"
        path.write_bytes(data)
        return dataclasses.replace(self.case, images=(path,))


def _blank(picture: Picture) -> Picture:
    from PIL import Image

    return Image.new("RGB", picture.size, "white")
