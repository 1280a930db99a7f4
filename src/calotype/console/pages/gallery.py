"""/console/gallery: an account's pictures, newest first."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, account_page
from calotype.console.context import Console
from calotype.console.search import PICTURES, Search
from calotype.console.task_lines import image_path, searched_to
from calotype.domain.ids import encode
from calotype.domain.task import Task
from calotype.store.gallery import Page

PATH: Final = "/console/gallery"
LIMIT: Final = 40
"""Tasks that are shown at a time."""


class Tile(msgspec.Struct, frozen=True):
    """One picture of the gallery."""

    href: str
    image: str
    width: int
    height: int
    alt: str
    title: str
    note: str
    at: int


class Older(msgspec.Struct, frozen=True):
    """Where the gallery goes on."""

    path: str
    searched_to: int | None
    """The time down to which nothing else was found, where the search broke off."""
    by_itself: bool
    """Whether to go on when this comes in sight, or only when asked to."""


def routes(console: Console) -> list[Route]:
    """The routes of this group."""

    async def gallery(request: Request, visitor: Visitor) -> Response:
        search = Search(request.scope["query_string"], PICTURES)
        page = Page([], None)
        if not search.wrong:
            page = await console.store.gallery.pictures(
                visitor.account_id, **search.wanted, now=console.clock(), limit=LIMIT
            )
        return console.render.page(
            request,
            "gallery.html",
            fragment="gallery_more.html",
            status=422 if search.wrong else 200,
            models=sorted(console.catalog.models),
            newest=search.link(PATH) if search.before is not None else "",
            older=_older(search, page),
            path=PATH,
            search=search,
            tiles=list(tiles_of(page.tasks)),
        )

    return [Route(PATH, account_page(console, gallery))]


def _older(search: Search, page: Page) -> Older | None:
    if page.searched_to is None:
        return None
    return Older(
        search.link(PATH, before=page.searched_to),
        searched_to(page.tasks, page.searched_to, LIMIT),
        by_itself=bool(page.tasks),
    )


def tiles_of(tasks: Sequence[Task]) -> Iterator[Tile]:
    """The pictures of tasks."""
    for task in tasks:
        prompt, many = task.request.prompt, len(task.result)
        for place, image in enumerate(task.result, 1):
            yield Tile(
                href=f"/console/tasks/{encode('task', task.id)}",
                image=image_path(image.asset_id),
                width=image.width,
                height=image.height,
                alt=f"{place} of {many}: {prompt}" if many > 1 else prompt,
                title=prompt,
                note=task.model,
                at=task.created_at,
            )
