"""Promise: performance.regression detects a delay of 20 % in 10 of 10 runs, and has no false alarm.

Real vLLM serves the tiny checkpoint. The suite compares this server with itself through two proxies
(--vlm-server-url, --vlm-compare-url). Either both are equal, or the first one delays every request
by a fifth of the median latency of its kind, text or image. Requests alternate between the proxies,
so that other processes on this host affect both equally.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from tiny_model import FIXTURES, MINERU, MODEL, Rows, judge, served

from pytest_ascend_vlm.engines.client import Client
from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.load.uncached import UncachedRequests
from pytest_ascend_vlm.spec.case import Case
from pytest_ascend_vlm.spec.case_files import load_cases

SLOWDOWN = 0.2
SAMPLES = 12


@contextlib.contextmanager
def proxy(endpoint: Endpoint, delays: Mapping[str, float]) -> Iterator[Endpoint]:
    """A proxy that forwards requests after a delay and streams the answers.

    Args:
        endpoint: the server behind the proxy.
        delays: seconds for "text" and "image" requests.
    """
    upstream = httpx.Client(base_url=endpoint.url, timeout=600, trust_env=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(delays.get("image" if b"image_url" in body else "text", 0.0))
            self._pass_on(body)

        def do_GET(self) -> None:
            self._pass_on(b"")

        def log_message(self, *_: Any) -> None:
            """Logs nothing."""

        def _pass_on(self, body: bytes) -> None:
            names = ("Authorization", "Content-Type")
            headers = {name: self.headers[name] for name in names if name in self.headers}
            with upstream.stream(self.command, self.path, content=body, headers=headers) as answer:
                self.send_response(answer.status_code)
                self.send_header("Content-Type", answer.headers.get("content-type", "text/plain"))
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for chunk in answer.iter_raw():
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.write(b"0\r\n\r\n")

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignores errors, such as a client that disconnects."""

    with Server(("127.0.0.1", 0), Handler) as server, upstream:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield Endpoint(url, endpoint.served_name, endpoint.api_key)
        server.shutdown()


def latencies(endpoint: Endpoint, work: Path) -> dict[str, float]:
    """Median seconds of a text and of an image request, at concurrency 1."""
    cold = UncachedRequests(work)
    asked = [MODEL.request(case) for case in load_cases((FIXTURES,))]
    # The checkpoint was taught texts and pages, so the suite measures these alone.
    kinds = {
        "text": [case for case in asked if case.group == "text"],
        "image": [case for case in asked if case.group == "document"],
    }
    with contextlib.closing(Client(endpoint, lambda: None)) as client:

        def seconds(case: Case) -> float:
            return client.stream(
                cold.case(case), UncachedRequests.sampling(case.max_tokens), bare=True
            ).seconds

        return {
            kind: statistics.median(seconds(cases[i % len(cases)]) for i in range(SAMPLES))
            for kind, cases in kinds.items()
        }


def verdicts(candidate: Endpoint, reference: Endpoint, work: Path) -> Rows:
    """The report rows of performance.regression, candidate against reference."""
    compared = f"--vlm-compare-url={reference.url}"
    rows = judge(MINERU, candidate, work, "-m", "performance", "-k", "compared", compared)
    return [row for row in rows if row["criterion"] == "performance.regression"]


def measure(runs: int, work: Path) -> list[dict[str, Any]]:
    """Compares `runs` times with and without a delay; prints the table line by line."""
    results = []
    with served(work) as endpoint, proxy(endpoint, {}) as reference:
        for number in range(runs):
            delays = {kind: SLOWDOWN * value for kind, value in latencies(reference, work).items()}
            for name, added in (("clean", {}), ("delayed", delays)):
                with proxy(endpoint, added) as candidate:
                    rows = verdicts(candidate, reference, work)
                red = any(row["status"] == "fail" for row in rows)
                sound = all(row["status"] in {"pass", "fail"} for row in rows) and len(rows) > 0
                low = ", ".join(f"{row['measured']:.3f}" for row in rows if row["measured"])
                print(f"{number + 1:>3} {name:<8} {'red' if red else 'green':<6} {low}", flush=True)
                results.append({"kind": name, "red": red, "holds": sound and red == bool(added)})
    return results


def main() -> int:
    """Prints the table and, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10, help="default: 10")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        results = measure(options.runs, Path(work))
    holds = all(result["holds"] for result in results)
    print(json.dumps({"benchmark": "slowdown_detection", "results": results, "holds": holds}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
