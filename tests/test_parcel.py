"""What of a project travels to the hosts of a cluster: as Ray itself packs it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.scheduling import parcel as module
from pytest_ascend_vlm.scheduling.parcel import parcel

Packed = Callable[..., set[str]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    write(root / "test_model.py")
    write(root / "golden" / "answers.json")
    return root


@pytest.fixture
def packed(project: Path, tmp_path: Path) -> Packed:
    """Packs the project as Ray does, and returns the files that travel."""
    packaging = pytest.importorskip("ray._private.runtime_env.packaging")

    def pack(*elsewhere: Path) -> set[str]:
        excluded = list(parcel(project, ("venv*",), elsewhere).excluded)
        package = tmp_path / "package.zip"
        packaging.create_package(str(project), package, True, excludes=excluded)
        with zipfile.ZipFile(package) as files:
            return {name for name in files.namelist() if not name.endswith("/")}

    return pack


def write(path: Path, size: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def test_hidden_directories_environments_and_own_ones_stay(project: Path, packed: Packed) -> None:
    for name in (".git/config", "venv3/a.py", "env/pyvenv.cfg", "a/__pycache__/b.pyc"):
        write(project / name)
    write(project / "reports" / "report.json")
    write(project / "weights [1]" / "model.safetensors")
    travels = packed(project / "reports", project / "weights [1]")
    assert travels == {"test_model.py", "golden/answers.json"}


def test_files_behind_a_link_travel_unless_they_are_weights(
    project: Path, packed: Packed, tmp_path: Path
) -> None:
    write(tmp_path / "cases" / "page.png")
    write(tmp_path / "models" / "org" / "model.safetensors")
    (project / "fixtures").symlink_to(tmp_path / "cases")
    (project / "weights").symlink_to(tmp_path / "models" / "org")
    travels = packed(tmp_path / "models")
    assert travels == {"test_model.py", "golden/answers.json", "fixtures/page.png"}


def test_a_link_to_a_directory_that_it_is_in_stays(project: Path, packed: Packed) -> None:
    (project / "golden" / "all").symlink_to(project)
    assert packed() == {"test_model.py", "golden/answers.json"}


def test_weights_above_the_project_do_not_keep_it_here(packed: Packed, tmp_path: Path) -> None:
    assert packed(tmp_path) == {"test_model.py", "golden/answers.json"}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (".gitignore", "/data/"),
        (".gitignore", "*.safetensors"),
        (".rayignore", "data"),
        ("data/.gitignore", "*"),
    ],
)
def test_what_is_listed_stays_and_is_not_counted(
    name: str, line: str, project: Path, packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT_MIB", 1)
    write(project / "data" / "model.safetensors", 2**20 + 1)
    (project / name).write_text(f"{line}\n", "utf-8")
    assert "data/model.safetensors" not in packed()


def test_a_list_in_another_encoding_is_named(project: Path) -> None:
    (project / ".gitignore").write_bytes("权重/\n".encode("gbk"))
    with pytest.raises(ConfigurationError, match=r"\.gitignore is not UTF-8"):
        parcel(project, (), ())


@pytest.mark.parametrize("is_linked", [False, True])
def test_what_is_too_large_is_named(
    is_linked: bool, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT_MIB", 1)
    home = tmp_path if is_linked else project
    write(home / "data" / "model.safetensors", 2 * 2**20)
    if is_linked:
        (project / "data").symlink_to(home / "data")
    with pytest.raises(ConfigurationError, match=r"2 MiB of .* would travel .* are data \(2 MiB\)"):
        parcel(project, (), ())
