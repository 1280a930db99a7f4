"""Tests of local pictures, with real libraries and tiny weights; they need the extra `local`."""

import importlib.util
from pathlib import Path

import pytest

_LACKING = [
    name
    for name in ("diffusers", "huggingface_hub", "torch", "transformers")
    if importlib.util.find_spec(name) is None
]
collect_ignore_glob = ["test_*.py"] if _LACKING else []


def pytest_report_collectionfinish() -> str:
    """Say that these are left out, where they are; `make test-local` has what they need."""
    if not _LACKING:
        return ""
    return f"tests/local is left to make test-local: there is no {', '.join(_LACKING)} here"


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Where tiny weights lie, for all processes of a run."""
    ours = tmp_path_factory.getbasetemp()
    folder = (ours if worker_id == "master" else ours.parent) / "weights"
    folder.mkdir(exist_ok=True)
    return folder
