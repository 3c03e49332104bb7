"""A server that misbehaves on command, put in the place of vLLM's.

`install` makes it what `python -m vllm.entrypoints.openai.api_server` runs. STAND_IN, JSON in the
environment, says how it behaves; every key may be left out.

  exit: prints an error and exits with this code at once; a negative one is a signal
  last_words: path of what it prints before that instead, as a dead server's log
  log: [seconds, line] pairs, printed one after another
  healthy: false: /health stays 503
  runaways: children that leave the session, ignore SIGTERM and are given up by their parent
  slow: seconds before a chat request is answered
  hang_from: the chat request, counted from 1, from which on none is answered
  dies_at: the chat request that kills it
  broken: answers chat requests with HTTP 500
  deaf: ignores SIGTERM
  asks: wants to know something of whoever sits at the terminal
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
    """Makes a package `vllm` under `root`, to be put first on PYTHONPATH; runs a program."""
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
