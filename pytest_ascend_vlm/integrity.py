"""Compares the files of an installed package with those of its release, or of an earlier time."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import json
import subprocess
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

from packaging.version import InvalidVersion, Version

_CHUNK_BYTES = 2**20
_GIT_SECONDS = 60.0


def changed_files(distribution: str) -> list[str] | None:
    """The files of an installed package that differ from its release; None if that is unknown.

    An installed wheel is compared with the hashes in its RECORD; that of vLLM takes some seconds.
    The images of vllm-ascend install git clones in editable mode. These are compared with the tag
    of the installed version. Files that the release does not have are not noticed.

    Args:
        distribution: name of the distribution, "vllm-ascend".
    """
    try:
        installed = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return None
    if clone := _editable_directory(installed):
        return _differing_from_tag(clone, installed.version)
    record = installed.read_text("RECORD")
    if record is None:
        return None
    rows = csv.reader(record.splitlines())
    return sorted(name for name, digest, _ in rows if _differs(installed, name, digest))


def _differs(installed: metadata.Distribution, name: str, digest: str) -> bool:
    """True if a file of a RECORD is missing or has another digest than "sha256=..."."""
    if not digest:  # RECORD itself, and bytecode
        return False
    path = Path(str(installed.locate_file(name)))
    algorithm, _, value = digest.partition("=")
    return not path.is_file() or _digest(path, algorithm) != value


def _digest(path: Path, algorithm: str) -> str:
    """A file's digest as RECORD writes it: base64 without padding."""
    total = hashlib.new(algorithm)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            total.update(chunk)
    return base64.urlsafe_b64encode(total.digest()).rstrip(b"=").decode()


def _editable_directory(installed: metadata.Distribution) -> Path | None:
    """The source directory of a package in editable mode; None for an installed wheel."""
    try:
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
    except ValueError:
        return None
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlparse(origin["url"]).path))


def _differing_from_tag(clone: Path, version: str) -> list[str] | None:
    """The files of a git clone that differ from the tag of a version; None if git cannot tell."""
    try:
        tag = f"v{Version(version).public}"
        done = subprocess.run(
            ["git", "-C", str(clone), "diff", "--name-only", tag, "--", "."],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (InvalidVersion, OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()


def code_digest(directory: Path) -> str:
    """SHA-256 of the names and contents of all Python files below a directory."""
    total = hashlib.sha256()
    for path in sorted(directory.rglob("*.py")):
        content = path.read_bytes()
        total.update(f"{path.relative_to(directory)}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def installed_state(package: str) -> str | None:
    """SHA-256 of the names, sizes and times of a package's code; None if it is not installed.

    It changes if somebody edits a file, which a version does not tell. It reads no content: vLLM
    has thousands of files.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    total = hashlib.sha256()
    for directory in sorted(spec.submodule_search_locations or ()):
        for path in sorted(Path(directory).rglob("*")):
            if path.suffix in {".py", ".so"} and path.is_file():
                state = path.stat()
                name = path.relative_to(directory)
                total.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return total.hexdigest()
