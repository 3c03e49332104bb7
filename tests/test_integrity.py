"""Changed files of an installed package are found; where nothing is comparable, nothing is said."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from pytest_ascend_vlm import integrity
from pytest_ascend_vlm.integrity import changed_files

FILES = {"vllm_ascend/__init__.py": b"", "vllm_ascend/worker.py": b"kernel = 1\n"}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


def install(site: Path, version: str = "0.18.0rc1") -> Path:
    """Installs a wheel; returns its dist-info."""
    info = site / f"vllm_ascend-{version}.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: vllm-ascend\nVersion: {version}\n"
    (info / "METADATA").write_text(text, "utf-8")
    lines = [f"{info.name}/RECORD,,", "vllm_ascend/__pycache__/worker.cpython-311.pyc,,"]
    for name, content in FILES.items():
        path = site / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}")
    (info / "RECORD").write_text("\n".join(lines), "utf-8")
    return info


def test_an_installed_wheel_is_unmodified(site: Path) -> None:
    install(site)
    assert changed_files("vllm-ascend") == []


def test_a_changed_and_a_missing_file_are_found(site: Path) -> None:
    install(site)
    (site / "vllm_ascend" / "worker.py").write_bytes(b"kernel = 2\n")
    assert changed_files("vllm-ascend") == ["vllm_ascend/worker.py"]
    (site / "vllm_ascend" / "__init__.py").unlink()
    assert changed_files("vllm-ascend") == ["vllm_ascend/__init__.py", "vllm_ascend/worker.py"]


def test_without_a_record_nothing_is_known(site: Path) -> None:
    assert changed_files("vllm-ascend-that-is-not-installed") is None
    (install(site) / "RECORD").unlink()
    assert changed_files("vllm-ascend") is None


def git(clone: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Someone", "-c", "user.email=someone@example.org")
    subprocess.run(["git", "-C", str(clone), *identity, *arguments], check=True)  # noqa: S607


@pytest.fixture
def clone(site: Path, tmp_path: Path) -> Path:
    """A git clone of the release that is installed in editable mode, as in vllm-ascend's images."""
    clone = tmp_path / "a clone"
    clone.mkdir()
    (clone / "worker.py").write_text("kernel = 1\n", "utf-8")
    git(clone, "init", "-q")
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "release")
    info = install(site, "0.18.0rc1+empty")
    origin = {"url": clone.as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(origin), "utf-8")
    return clone


def test_an_editable_clone_is_compared_with_the_tag_of_its_version(clone: Path) -> None:
    git(clone, "tag", "v0.18.0rc1")
    assert changed_files("vllm-ascend") == []
    (clone / "worker.py").write_text("kernel = 2\n", "utf-8")
    assert changed_files("vllm-ascend") == ["worker.py"]
    git(clone, "commit", "-qam", "a patch of our own")
    assert changed_files("vllm-ascend") == ["worker.py"]


def test_an_editable_clone_without_the_tag_says_nothing(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert changed_files("vllm-ascend") is None
    git(clone, "tag", "v0.18.0rc1")
    monkeypatch.setenv("PATH", "")
    assert changed_files("vllm-ascend") is None


def test_a_git_that_hangs_says_nothing(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(clone, "tag", "v0.18.0rc1")
    monkeypatch.setattr(integrity, "_GIT_SECONDS", 0.0)
    assert changed_files("vllm-ascend") is None
