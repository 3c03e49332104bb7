"""The job of a load generator: the file that `generator` writes and each generator's module reads.

A job is a JSON file:

* `rows`: a JSONL file with one request per line: its `messages`, and `output_tokens`, the maximum
  number of tokens to generate;
* `result`: the file to write the result to;
* `url`, `model`: the server and the model's name. The API key is in the environment variable
  `OPENAI_API_KEY`;
* `concurrency`, `ramp`, `rate`: the fields of `generator.Traffic`;
* `extra`: further fields of each request.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

UNCOUNTED = "the stream ended without the number of its tokens"
"""Error of a request whose stream broke off: the generators would count it as answered."""


def read_rows(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The requests of a job, in the order in which they are sent."""
    return [json.loads(line) for line in Path(job["rows"]).read_text("utf-8").splitlines()]


def has_module(package: str, module: str) -> bool:
    """True if an installed package contains a module; imports neither, which would take seconds.

    Args:
        package: name of the package.
        module: path of the module's file inside the package, e.g. `benchmarks/serve.py`.
    """
    found = importlib.util.find_spec(package)
    roots = found.submodule_search_locations if found else None
    return any((Path(root) / module).is_file() for root in roots or ())
