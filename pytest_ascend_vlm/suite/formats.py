"""Criteria serving.encodings, serving.formats and serving.urls: an image is read as it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..criteria.formats import judge_reading
from ..criteria.serving import judge_refusals
from ..engines.formats import FORMATS, LOSSLESS
from ..observation.answers import first_reply
from ..session.image_files import ImageFiles
from ..session.image_urls import UnreachableError, excluded, require_fetched, require_local
from ..session.judge import Judge
from ..spec.case import Capability, Sampling
from ..spec.model import ExpectedFailure, ModelSpec
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    from ..criteria.verdict import Verdict
    from ..engines.endpoint import Server

_FEW_TOKENS = 5
_16_BITS = ExpectedFailure(
    criterion="serving.formats[16-bit]",
    reason="vLLM up to 0.32 clips 16-bit values at 255, so that most of the image is white",
    issue="not tracked upstream yet; https://github.com/python-pillow/Pillow/issues/2574",
    shows="the server misreads the file: its 16-bit values are clipped at 255",
    seen_in=">=0.18,<0.33",
)
_UNSEEN = {
    "exif-3": "EXIF orientation",
    "exif-6": "EXIF orientation",
    "exif-8": "EXIF orientation",
    "exif-6-png": "EXIF orientation",
    "exif-6-webp": "EXIF orientation",
    "grey-alpha": "transparency",
    "palette-transparent": "transparency",
}
_AS_STORED = tuple(
    ExpectedFailure(
        criterion=f"serving.formats[{form}]",
        reason=f"vLLM before 0.24 ignores the {what} of such a file",
        issue="https://github.com/vllm-project/vllm/pull/44974",
        shows=f"the server misreads the file: its {what} is ignored",
        seen_in=">=0.18,<0.24",
        fixed_in="0.24",
    )
    for form, what in _UNSEEN.items()
)
_MISSING = ExpectedFailure(
    criterion="serving.urls[missing]",
    reason="vLLM before 0.32 answers HTTP 500 if an image's URL answers 404",
    issue="https://github.com/vllm-project/vllm/issues/47163",
    shows="HTTP 500 instead of a 4xx",
    seen_in="==0.18.*",
    fixed_in="0.32",
)
_FILE = ExpectedFailure(
    criterion="serving.urls[file]",
    reason="vLLM up to 0.32 refuses a file URL, but with HTTP 500",
    issue="not tracked upstream yet",
    shows="Cannot load local files without",
    seen_in=">=0.18,<0.33",
)


class FormatCriteria(Criteria):
    """Criteria of image files and of their URLs."""

    @criterion("serving.encodings", needs=Capability.IMAGE)
    @pytest.mark.parametrize("encoding", LOSSLESS)
    def test_encodings_agree(self, encoding: str, image_files: ImageFiles, judge: Judge) -> None:
        """Lossless encodings of one image (PNG, BMP, TIFF, WebP) give the same numbers.

        The pixels are equal, so a difference comes from a defect in decoding or colour conversion.
        Users would see a model whose answers depend on the file format. The image is coloured. The
        rule is that of serving.formats.

        If this fails: compare the versions of the image libraries (Pillow, OpenCV) on both hosts.
        Look for colour channel order and alpha handling in the image loader.
        """
        judge(judge_reading(image_files.read(LOSSLESS[encoding])))

    @criterion("serving.formats", needs=Capability.IMAGE, known_failures=(_16_BITS, *_AS_STORED))
    @pytest.mark.parametrize("form", FORMATS)
    def test_formats_agree(self, form: str, image_files: ImageFiles, judge: Judge) -> None:
        """An image file gives the same numbers as an RGB PNG of what the file shows.

        The files are made from a coloured picture: JPEG (turned by EXIF, progressive, CMYK, grey,
        of quality 20), PNG (turned by EXIF, with alpha, with a palette, with a transparent colour,
        grey, 16-bit, 1-bit), WebP (turned by EXIF, with alpha), GIF, and the 1-bit TIFF of fax
        machines. Prompt tokens are equal. The log-probabilities of a forced answer differ by at
        most {format_ratio} of the reference's own bf16 error; another decoder's rounding of pixels
        causes less. Each request is cold.

        Engines disagree on some formats. Expected is what a viewer shows. EXIF turns the picture;
        SGLang ignores it, and so does vLLM without its pull request 44974. Transparent pixels are
        white, vLLM's default; other engines make them black, or ignore the transparency. 16 bits
        are scaled to 8, as the PNG standard says; Pillow clips them. CMYK values are inverted if
        Adobe's marker says so, as Pillow does; other decoders ignore the marker.

        If this fails: the message names the mistake if it is a known one. Update vLLM, or convert
        such files before they are sent. If another background is intended
        (rgba_background_color), declare the expected failure.
        """
        judge(judge_reading(image_files.read(FORMATS[form])))

    @criterion(
        "serving.urls", "robustness", needs=Capability.IMAGE, known_failures=(_MISSING, _FILE)
    )
    @pytest.mark.parametrize("url", ["http", "replaced", "missing", "file"])
    def test_urls_are_fetched_or_refused(
        self, url: str, server: Server, image_files: ImageFiles, judge: Judge
    ) -> None:
        """An image behind an `http://` URL is read; a URL without an image is refused with a 4xx.

        The suite serves a PNG on this host's loopback interface while the test runs. Row `http`:
        the numbers equal those of the same file as a `data:` URL. Row `replaced`: so they do if a
        request about another file at this URL was answered before. Row `missing`: a URL that
        answers 404 is refused. Row `file`: the `file://` URL of a real image is refused, unless the
        model declares `allowed_local_media_path`; otherwise every client could read this host's
        files. After a refusal, the next good request is answered.

        vLLM fetches any `http://` URL, also of loopback and of internal hosts, and follows
        redirects. `--allowed-media-domains` limits the hosts, and VLLM_MEDIA_URL_ALLOW_REDIRECTS=0
        turns redirects off.

        If this fails: `http`: look at VLLM_IMAGE_FETCH_TIMEOUT and at a proxy between the server
        and the image. `replaced`: look for a cache of files whose key is the URL. `missing`: after
        a 5xx, clients retry a request that can never succeed. `file`: look for
        --allowed-local-media-path in the command that started the server.
        """
        from ..engines.file_server import serve_file

        image = image_files.case.images[0]
        if reason := _declared(self.model, image) if url == "file" else excluded(self.model):
            judge.not_applicable(reason)
        try:
            require_local(server)
            with serve_file(image_files.cold_png) as files:
                if url == "http":
                    verdict = judge_reading(image_files.read_at(files.url))
                elif url == "replaced":
                    verdict = judge_reading(image_files.read_replaced(files))
                else:
                    address = image.absolute().as_uri() if url == "file" else files.missing_url
                    verdict = _judge_refusal(image_files, address)
            if url != "file":
                require_fetched(server, files.requests)
        except UnreachableError as error:
            judge.cannot_run(str(error))
        judge(verdict)


def _judge_refusal(image_files: ImageFiles, url: str) -> Verdict:
    """The server refuses an image at a URL, and answers the next good request."""
    from ..engines.messages import messages

    client, case = image_files.client, image_files.case
    chat = messages(case, lambda part: {**part, "image_url": {"url": url}})
    with client.disposable() as other:
        answers = other.send(chat, case.id, Sampling(max_tokens=_FEW_TOKENS))
    return judge_refusals({url: first_reply(answers)}, client.prompt(case))


def _declared(model: ModelSpec, image: Path) -> str | None:
    """Reason why the model is declared to read files of this host, or None."""
    allowed = model.serve.get("allowed_local_media_path")
    if allowed and Path(allowed).resolve() in image.resolve().parents:
        return f"the model is served with allowed_local_media_path={allowed!r}"
    return None
