"""GET /console/static/{version}/{path}: what ships with the pages."""

import hashlib
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.domain.errors import UnknownRoute

PREFIX: Final = "/console/static"
_YEAR: Final = 365 * 24 * 3600
_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "md": "text/plain; charset=utf-8",
    "svg": "image/svg+xml",
    "woff2": "font/woff2",
}


class StaticFiles:
    """The files, kept in memory; their URLs change when any of them does."""

    def url(self, path: str) -> str:
        """Where a file is, such as ``console.css``.

        Raises:
            KeyError: there is no such file.

        """
        if path not in self._files:
            raise KeyError(path)
        return f"{PREFIX}/{self._version}/{path}"

    async def handle(self, request: Request) -> Response:
        """A file; under the version of another release it is what it is here, not to be kept."""
        path = request.path_params["path"]
        if path not in self._files:
            raise UnknownRoute("There is no such file.")
        ours = request.path_params["version"] == self._version
        kept = f"public, max-age={_YEAR}, immutable" if ours else "no-cache"
        kind = _TYPES[path.rpartition(".")[2]]
        return Response(self._files[path], headers={"cache-control": kept, "content-type": kind})

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return _under(files("calotype.console") / "static", "")

    @cached_property
    def _version(self) -> str:
        digest = hashlib.sha256()
        for path, content in sorted(self._files.items()):
            digest.update(path.encode() + hashlib.sha256(content).digest())
        return digest.hexdigest()[:12]


def _under(folder: Traversable, prefix: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for each in folder.iterdir():
        if each.is_dir():
            found |= _under(each, f"{prefix}{each.name}/")
        elif each.name.rpartition(".")[2] in _TYPES:
            found[prefix + each.name] = each.read_bytes()
    return found
