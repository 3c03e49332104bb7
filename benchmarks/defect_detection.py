"""Measures which criteria detect which defect, and how often an undamaged model fails.

Real vLLM serves the tiny checkpoint: undamaged, with damaged weights, and with every image of a
request replaced by a blank one. The suite judges each through --vlm-server-url, so it does not know
the weights.

Promises:
* the undamaged checkpoint passes every run;
* with 5 % noise on the weights, baseline.logprobs and numerics.logits fail;
* with int4-rounded weights, and with 40 % noise, baseline.image and document.* fail as well;
* with blank images, document.* fails and baseline.text passes.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from tiny_model import FIXTURES, MODEL, Rows, judge, served

from pytest_ascend_vlm.engines.endpoint import Endpoint

NUMBERS = ("baseline.logprobs", "numerics.logits")
READING = ("baseline.image", "document.characters")


@dataclass(frozen=True)
class Defect:
    """A way to damage a served model, and the criteria that have to detect it.

    Attributes:
        name: its name in the table.
        harm: changes one weight tensor; None to leave the weights undamaged.
        blank_images: True to replace the images of requests.
        red: criteria with at least one case that has to fail.
        green: criteria without any case that may fail.
    """

    name: str
    harm: Callable[[Any], Any] | None
    blank_images: bool
    red: tuple[str, ...]
    green: tuple[str, ...] = ()


def noise(share: float) -> Callable[[Any], Any]:
    """Adds Gaussian noise with a standard deviation of `share` x the tensor's RMS."""

    def harm(tensor: Any) -> Any:
        import torch

        generator = torch.Generator().manual_seed(tensor.numel())
        wide = tensor.float()
        scale = share * wide.square().mean().sqrt()
        return wide + scale * torch.randn(wide.shape, generator=generator)

    return harm


def int4(tensor: Any) -> Any:
    """Rounds every row of a matrix to 15 levels, like a symmetric int4 quantization."""
    if tensor.ndim < 2:
        return tensor
    rows = tensor.float().flatten(1)
    step = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 7
    return ((rows / step).round() * step).view(tensor.shape)


DEFECTS = (
    Defect("5 % noise", noise(0.05), False, NUMBERS),
    Defect("int4 weights", int4, False, (*NUMBERS, *READING)),
    Defect("40 % noise", noise(0.40), False, (*NUMBERS, *READING)),
    Defect("blank images", None, True, ("document.characters",), green=("baseline.text",)),
)


def harmed_fixtures(harm: Callable[[Any], Any], root: Path) -> Path:
    """A fixture root with a tiny checkpoint whose weight tensors are all changed."""
    from safetensors.torch import load_file, save_file

    assert MODEL.tiny is not None
    checkpoint = root / "tiny" / MODEL.tiny
    shutil.copytree(FIXTURES / "tiny" / MODEL.tiny, checkpoint)
    path = checkpoint / "model.safetensors"
    weights = load_file(path)
    harmed = {name: harm(tensor).to(tensor.dtype) for name, tensor in weights.items()}
    save_file(harmed, path, metadata={"format": "pt"})
    return root


@contextlib.contextmanager
def blanking_proxy(endpoint: Endpoint) -> Iterator[Endpoint]:
    """A proxy that replaces every image of a request by a white one."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._pass_on("POST", blank_images(body))

        def do_GET(self) -> None:
            self._pass_on("GET", b"")

        def log_message(self, *_: Any) -> None:
            """Logs nothing."""

        def _pass_on(self, method: str, body: bytes) -> None:
            headers = {
                name: self.headers[name]
                for name in ("Authorization", "Content-Type")
                if name in self.headers
            }
            url = endpoint.url + self.path
            answer = httpx.request(method, url, content=body, headers=headers, timeout=600)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("content-type", "text/plain"))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_port}"
        yield Endpoint(url, endpoint.served_name, endpoint.api_key)
        proxy.shutdown()


def blank_images(body: bytes) -> bytes:
    """A chat request with every readable image replaced by a white one of its size."""
    try:
        request = json.loads(body)
        parts = [part for message in request["messages"] for part in message["content"]]
    except (ValueError, KeyError, TypeError):
        return body
    for part in parts:
        if isinstance(part, dict) and part.get("type") == "image_url":
            _blank(part["image_url"])
    return json.dumps(request).encode()


def _blank(image_url: dict[str, str]) -> None:
    data = base64.b64decode(image_url["url"].partition(",")[2])
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            size = image.size
    except (OSError, Image.DecompressionBombError):
        return
    white = io.BytesIO()
    Image.new("RGB", size, "white").save(white, "PNG")
    encoded = base64.b64encode(white.getvalue()).decode("ascii")
    image_url["url"] = f"data:image/png;base64,{encoded}"


def red_criteria(rows: Rows) -> Counter[str]:
    """Criterion -> number of its cases with status fail or error."""
    return Counter(row["criterion"] for row in rows if row["status"] in {"fail", "error"})


def table_line(name: str, red: Counter[str], holds: bool) -> str:
    """One line of the printed table."""
    found = ", ".join(f"{criterion} {count}" for criterion, count in sorted(red.items()))
    return f"{name:<16} {'as promised' if holds else 'NOT AS PROMISED':<16} red: {found or '-'}"


def verdicts(
    clean_runs: int, defects: Sequence[Defect], work: Path
) -> Iterator[tuple[str, Counter[str], bool]]:
    """Judges the undamaged checkpoint and the defects: (name, red criteria, as promised)."""
    blank = [defect for defect in defects if defect.blank_images]
    if clean_runs or blank:
        with served(work) as endpoint:
            for run in range(clean_runs):
                red = red_criteria(judge(endpoint, work))
                yield f"clean {run + 1}", red, not red
            for defect in blank:
                with blanking_proxy(endpoint) as proxy:
                    red = red_criteria(judge(proxy, work))
                yield defect.name, red, keeps_promise(defect, red)
    for defect in defects:
        if defect.harm is not None:
            root = harmed_fixtures(defect.harm, work / defect.name.replace(" ", "-"))
            with served(work, (root, FIXTURES)) as endpoint:
                red = red_criteria(judge(endpoint, work))
            yield defect.name, red, keeps_promise(defect, red)


def measure(clean_runs: int, names: list[str], work: Path) -> list[dict[str, Any]]:
    """Judges all variants and prints the table line by line."""
    results = []
    defects = [defect for defect in DEFECTS if defect.name in names]
    for name, red, holds in verdicts(clean_runs, defects, work):
        print(table_line(name, red, holds), flush=True)
        results.append({"defect": name, "red": dict(red), "holds": holds})
    return results


def keeps_promise(defect: Defect, red: Counter[str]) -> bool:
    """True if all criteria of `red` have a failure and those of `green` have none."""
    return all(red[name] for name in defect.red) and not any(red[name] for name in defect.green)


def main() -> int:
    """Prints the table and, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clean-runs", type=int, default=20, help="default: 20")
    names = [defect.name for defect in DEFECTS]
    parser.add_argument(
        "--defects", nargs="+", choices=names, default=names, metavar="NAME", help="default: all"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        results = measure(options.clean_runs, options.defects, Path(work))
    holds = all(result["holds"] for result in results)
    print(json.dumps({"benchmark": "defect_detection", "results": results, "holds": holds}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
