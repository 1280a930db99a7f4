"""Weights from the hub: which files are wanted, that they fit the disk, that they came whole."""

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from calotype.cli import show
from calotype.cli.faults import MISCONFIGURED, CommandFault

if TYPE_CHECKING:  # of the extra `local`
    from huggingface_hub.hf_api import RepoFile

_INDEX: Final = "model_index.json"
_PLAIN: Final = re.compile(r"[^/]+/[^./]+\.safetensors")
_HALF: Final = re.compile(r"[^/]+/[^./]+(\.fp16[^./]*)\.safetensors")
"""The same weights in 16 bits, fetched where there are no others."""
_OTHER_WEIGHTS: Final = (".bin", ".ckpt", ".msgpack", ".pt", ".pth")
_WORDS: Final = (".jinja", ".json", ".model", ".txt")
"""Settings of a part, its vocabulary, its template of chats."""


def pull(repository: str, *, revision: str | None, to: Path | None) -> Path:
    """Fetch what diffusers needs of a repository; returns the folder that it lies in.

    Run again it goes on where it was cut off, and looks at every file anew.

    Args:
        repository: ``owner/name``.
        revision: a branch, tag or commit; None: the newest.
        to: a folder; None: the hub's cache.

    Raises:
        CommandFault: with what can be done about it.

    """
    with _told(repository):
        from huggingface_hub import HfApi, constants
        from huggingface_hub.hf_api import RepoFile

        api = HfApi(library_name="calotype")
        commit = api.resolve_revision(repository, revision=revision)
        listed = api.list_repo_tree(repository, recursive=True, revision=commit.resolved)
        files = {one.path: one for one in listed if isinstance(one, RepoFile)}
        if _INDEX not in files:
            raise CommandFault(
                f"{repository} has no {_INDEX}: these are no weights as diffusers saves them.",
                exit_code=MISCONFIGURED,
            )
        index = Path(api.hf_hub_download(repository, _INDEX, revision=commit, local_dir=to))
        folder = index.parent
        parts = _parts(repository, index)
        wanted = {path: files[path] for path in chosen(repository, list(files), parts)}
        missing = [file for path, file in wanted.items() if not _lies(folder / path, file)]
        cached = Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")
        title = f"{repository} at {commit.resolved[:12]}"
        _tell_size(title, wanted, missing, to or cached)
        for path in wanted:
            api.hf_hub_download(repository, path, revision=commit, local_dir=to)
    _check(folder, wanted)
    return folder


def _parts(repository: str, index: Path) -> dict[str, Any]:
    """What stands in a ``model_index.json``."""
    try:
        return msgspec.json.decode(index.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise CommandFault(
            f"The {_INDEX} of {repository} is not as diffusers writes it: {error}; take another "
            "repository, or another --revision of it.",
            exit_code=MISCONFIGURED,
        ) from None


def chosen(repository: str, paths: list[str], index: Mapping[str, Any]) -> list[str]:
    """Pick what is wanted of a repository's files: settings, vocabularies and safetensors.

    Args:
        repository: its name.
        paths: of all its files.
        index: its ``model_index.json``.

    Raises:
        CommandFault: a part of it has weights, but none as safetensors.

    """
    parts = {part for part, value in index.items() if isinstance(value, list) and any(value[:1])}
    inside = [path for path in paths if path.count("/") == 1 and path.split("/")[0] in parts]
    weights = [path for path in inside if _PLAIN.fullmatch(path)]
    weights = weights or [path for path in inside if _HALF.fullmatch(path)]
    safe = {path.split("/")[0] for path in weights}
    for path in inside:
        part = path.split("/")[0]
        if path.endswith(_OTHER_WEIGHTS) and part not in safe:
            raise CommandFault(
                f"The {part} of {repository} has no safetensors, only files that could run "
                "anything on this machine; take a repository that has them.",
                exit_code=MISCONFIGURED,
            )
    return [_INDEX, *weights, *(path for path in inside if path.endswith(_WORDS))]


def _lies(path: Path, file: "RepoFile") -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _tell_size(
    title: str, files: "Mapping[str, RepoFile]", missing: "list[RepoFile]", place: Path
) -> None:
    """Say what will come, and refuse what the disk has no room for."""
    whole = sum(file.size for file in files.values())
    begun = sum(part.stat().st_size for part in place.rglob("*.incomplete"))
    needed = max(0, sum(file.size for file in missing) - begun)
    show.note(
        f"{title}: {len(files)} files, {show.size(whole)}, of which {show.size(needed)} are to "
        f"be fetched into {place}."
    )
    there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise CommandFault(
            f"{place} has {show.size(free)} left and {show.size(needed)} are needed; make room, "
            "or name another folder with --to or HF_HOME."
        )


def _check(folder: Path, files: "Mapping[str, RepoFile]") -> None:
    """Compare every file with the hash that the hub has of it, and remove what differs."""
    show.note(f"Comparing {len(files)} files with their hashes.")
    wrong = [path for path, file in files.items() if not _is_whole(folder / path, file)]
    for path in wrong:
        (folder / path).resolve().unlink()  # in the hub's cache it is a link to what came
        (folder / path).unlink(missing_ok=True)
    if wrong:
        raise CommandFault(
            f"{', '.join(wrong)}: not what the hub has, and removed. Run the same command again; "
            "if that ends like this too, something on the way changes files."
        )


def _is_whole(path: Path, file: "RepoFile") -> bool:
    if not _lies(path, file):
        return False
    with path.open("rb") as stream:
        if file.lfs is not None:
            return bool(hashlib.file_digest(stream, "sha256").hexdigest() == file.lfs.sha256)
        small = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)  # as Git has it
        small.update(stream.read())
    return bool(small.hexdigest() == file.blob_id)


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """Say what went wrong between us and the hub, and what cures it."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise CommandFault(
            f"{repository} is gated: accept its terms on the hub's page of it, then set HF_TOKEN "
            "to a token of that account."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CommandFault(
            f"The hub has no {repository}, or not for you: check its spelling, owner/name; for a "
            "private one set HF_TOKEN to a token that may read it."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CommandFault(f"{repository} has no such revision.") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        cure = (
            "HF_TOKEN is not taken; set it to a token that may read it, or to none"
            if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
            else "try again later; what came stays"
        )
        raise CommandFault(f"The hub answered {status} for {repository}: {cure}.") from error
    except errors.HFValidationError as error:
        raise CommandFault(
            f"{repository} is no repository; write owner/name as the hub has it.",
            exit_code=MISCONFIGURED,
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise CommandFault("HF_HUB_OFFLINE is set; unset it to fetch anything.") from error
    except (errors.RevisionResolutionError, httpx2.TransportError, OSError) as error:
        if isinstance(error, OSError) and error.strerror:  # of this machine: a full disk, say
            raise
        raise CommandFault(
            f"The hub cannot be reached, or broke off ({type(error).__name__}); run the same "
            "command again when the network is back: it goes on where it stopped. Without a "
            "network, copy the folder from a machine that has it."
        ) from error
