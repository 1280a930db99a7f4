"""Tests of local pictures need the extra `local`; `make test-local` has it, or fails."""

from importlib.util import find_spec
from pathlib import Path

import pytest

if not all(find_spec(library) for library in ("diffusers", "torch", "transformers")):
    collect_ignore_glob = ["*"]


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Where tiny weights lie, for all processes of a run."""
    ours = tmp_path_factory.getbasetemp()
    folder = (ours if worker_id == "master" else ours.parent) / "weights"
    folder.mkdir(exist_ok=True)
    return folder
