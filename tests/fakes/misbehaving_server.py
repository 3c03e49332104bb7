"""A fake of vLLM's server, with defects that a test can choose.

After `install`, `python -m vllm.entrypoints.openai.api_server` runs this file. The environment
variable STAND_IN is a JSON object that describes its behaviour. Every key is optional.

  exit: prints an error and exits with this code immediately; a negative code is a signal
  last_words: path of a file that is printed instead of that error, such as a dead server's log
  log: [seconds, line] pairs, printed one after another
  healthy: false: /health always returns 503
  runaways: number of orphaned child processes that leave the session and ignore SIGTERM
  slow: seconds before a chat request is answered
  hang_from: number of the first chat request (from 1) that is not answered; no later one is either
  dies_at: number of the chat request at which the process dies
  broken: answers chat requests with HTTP 500
  deaf: ignores SIGTERM
  asks: reads a line from the terminal
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

RUNAWAY = """
import os, signal, sys, time
if os.fork(): sys.exit()
os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('runaway', flush=True); time.sleep(600)
"""
TOLERANT_PARSER = """
class FlexibleArgumentParser:
    def parse_args(self, words): pass

def make_arg_parser(parser): return parser
"""
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "stand-in",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": "Paris"},
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
}


def install(root: Path, program: Path = Path(__file__)) -> Path:
    """Creates a package `vllm` that runs a program; `root` has to be first on PYTHONPATH."""
    package = root / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for directory in (package, *package.parents[:2]):
        (directory / "__init__.py").touch()
    shutil.copy(program, package / "api_server.py")
    (package / "cli_args.py").write_text(TOLERANT_PARSER, "utf-8")
    return root


def say(line: str) -> None:
    print(line, flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    plan: ClassVar[dict[str, Any]] = {}
    asked = 0

    def log_message(self, *args: Any) -> None:
        pass

    def reply(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.reply(200 if self.plan.get("healthy", True) else 503, {})

    def do_POST(self) -> None:
        Handler.asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        say(f"request {self.asked}")
        hangs = self.asked >= self.plan.get("hang_from", 1_000_000)
        time.sleep(600 if hangs else self.plan.get("slow", 0))
        if self.asked == self.plan.get("dies_at"):
            say("Fatal Python error: Segmentation fault")
            os._exit(139)
        if self.plan.get("broken"):
            self.reply(500, {"error": {"message": "out of kernels"}})
        elif self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            self.reply(401, {"error": {"message": "wrong key"}})
        else:
            self.reply(200, ANSWER)


def main(plan: dict[str, Any]) -> None:
    say("arguments: " + " ".join(sys.argv[1:]))
    if plan.get("deaf"):
        signal.signal(signal.SIGTERM, lambda *_: say("SIGTERM ignored"))
    if plan.get("asks"):
        try:
            say("the terminal says " + Path("/dev/tty").read_text("utf-8"))
        except OSError as error:
            say(f"the terminal says nothing: {error.strerror}")
    if "exit" in plan:
        words = plan.get("last_words")
        error = "RuntimeError: no kernel for this device"
        say(Path(words).read_bytes().decode("utf-8") if words else error)
        if plan["exit"] < 0:
            os.kill(os.getpid(), -plan["exit"])
        sys.exit(plan["exit"])
    for _ in range(plan.get("runaways", 0)):
        subprocess.run([sys.executable, "-c", RUNAWAY], check=True)
    for seconds, line in plan.get("log", []):
        time.sleep(seconds)
        say(line)
    host, port = (sys.argv[sys.argv.index(flag) + 1] for flag in ("--host", "--port"))
    Handler.plan = plan
    server = ThreadingHTTPServer((host, int(port)), Handler)
    say("up")
    server.serve_forever()


if __name__ == "__main__":
    main(json.loads(os.environ.get("STAND_IN", "{}")))
