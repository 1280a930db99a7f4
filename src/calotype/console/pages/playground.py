"""The playground: a form for any model, what it costs, and what comes of it."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, account_page, check_form
from calotype.console.context import Console
from calotype.console.errors import PageError
from calotype.console.filters import usd
from calotype.console.forms import Form
from calotype.console.live import LiveTask, live_task
from calotype.console.pages.gallery import tiles_of
from calotype.console.playground_form import OURS, PICKED, Said
from calotype.console.playground_view import Problem, Studios, told_gone
from calotype.console.query import asked
from calotype.console.render import redirect
from calotype.domain.errors import (
    BodyTooLarge,
    CalotypeError,
    InvalidRequest,
    UnsupportedMediaType,
)
from calotype.domain.ids import decode, encode
from calotype.domain.task import Reference, Task
from calotype.services import multipart
from calotype.services.assets import Kept
from calotype.services.submission import AcceptanceInDoubt

PATH: Final = "/console/playground"
_RECENT: Final = 6
"""Pictures that are shown while there is none to develop."""
_TEXT_BYTES: Final = 384 * 1024
"""Of a form beyond its files: the longest prompt fits, every character of it encoded."""


def routes(console: Console) -> list[Route]:
    """The routes of this group."""
    pages = _Playground(console)
    return [
        Route(PATH, account_page(console, pages.page)),
        Route(PATH, account_page(console, pages.submit, reads_body=True), methods=["POST"]),
        Route(f"{PATH}/form", account_page(console, pages.form, reads_body=True), methods=["POST"]),
    ]


class _Playground:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._studios = Studios(console)
        references = [model.references for model in console.catalog.models.values()]
        self._max_references = max((each.max_items for each in references), default=0)
        self._max_file = max((each.max_bytes for each in references), default=0)

    async def page(self, request: Request, visitor: Visitor) -> Response:
        """The form, empty or as a task was asked for; with ``task`` what comes of that."""
        query = asked(request, "model", "from", "task", "reference")
        said, live = Said.of({"model": query["model"]}), None
        if word := query["task"] or query["from"]:
            task = await self._console.delivery.find(word, account_id=visitor.account_id)
            said = Said.of_task(task)
            if query["task"]:
                live = live_task(self._console, request, task, operator=False)
        if word := query["reference"]:
            said = await self._with_reference(visitor, said, word)
        recent: Sequence[Task] = ()
        if live is None:
            pictures = self._console.store.gallery.pictures
            recent = (
                await pictures(visitor.account_id, now=self._console.clock(), limit=_RECENT)
            ).tasks
        if recent and not said.get("model") and self._studios.may_use(visitor, recent[0].model):
            said = said.having(model=recent[0].model)
        return await self._page(request, visitor, said, live=live, recent=recent)

    async def form(self, request: Request, visitor: Visitor) -> Response:
        """The form anew, for other choices."""
        form = await Form.read(request, limit=_TEXT_BYTES)
        check_form(self._console, request, visitor.session, form.get("csrf"))
        return await self._page(request, visitor, Said.of(form.plain))

    async def submit(self, request: Request, visitor: Visitor) -> Response:
        """Send a request, by the API's own way."""
        form, wrong = multipart.Form({}, []), list[InvalidRequest]()
        kept: list[Kept] = []
        try:
            async with self._read(request, visitor, form, wrong):
                said = _said_with(form)
                if said.get(f"{OURS}show") or said.changes_model:
                    await self._discard(form.uploads)
                    return await self._page(request, visitor, said)
                if wrong:
                    raise wrong[0]
                kept = await self._picked(visitor, said)
                word = await self._accepted(request, visitor, said, [*kept, *form.references])
        except CalotypeError as error:
            if not isinstance(error, AcceptanceInDoubt):  # what a task may refer to stays
                await self._discard(kept)
            said = _said_with(form)
            return await self._page(request, visitor, said, problem=Problem.of(error))
        path = f"{PATH}?task={word}#outcome"
        if "hx-request" in request.headers:
            return Response(headers={"hx-redirect": path})
        return redirect(path)

    async def _accepted(
        self,
        request: Request,
        visitor: Visitor,
        said: Said,
        references: Sequence[Reference | Kept],
    ) -> str:
        """The task of a request; the same for the same form, however often it is sent.

        Raises:
            errors.InvalidRequest: it costs more than the form showed.

        """
        submission, fields = self._console.submission, said.request
        every = [*references, *self._console.references.judge(said.urls)]
        costs = await submission.quote(visitor.key, fields, references=every, text=True)
        shown = said.shown_price
        if shown is None or costs > shown:
            before = "no price was shown" if shown is None else f"{usd(shown)} was shown"
            raise InvalidRequest(
                f"This costs {usd(costs)}, and {before}. Nothing was bought: generate again "
                "if that is right."
            )
        same = submission.fingerprint(fields, references=every, text=True).hex()
        accepted = await submission.submit(
            visitor.key,
            fields,
            references=every,
            text=True,
            request_id=request.scope["state"]["request_id"],
            idempotency_key=f"console {said.get(f'{OURS}token')[:64]} {same}",
        )
        return encode("task", accepted.task.task_id)

    # What comes in

    @asynccontextmanager
    async def _read(
        self,
        request: Request,
        visitor: Visitor,
        form: multipart.Form,
        wrong: list[InvalidRequest],
    ) -> AsyncIterator[None]:
        """The form, its files stored; they are gone again when what is done with it raises.

        Files that are refused are noted as ``wrong``, so that the rest of the form is read.
        """
        kind = request.headers.get("content-type", "")
        if not kind.lower().startswith("multipart/form-data"):
            raise UnsupportedMediaType("Send the form as multipart/form-data.")

        async def keep(chunks: AsyncIterator[bytes]) -> Kept | None:
            try:
                return await self._console.assets.keep(
                    chunks,
                    account_id=visitor.account_id,
                    kind="reference",
                    max_bytes=self._max_file,
                )
            except InvalidRequest as error:
                error.param = "image"
                wrong.append(error)
                async for _ in chunks:
                    pass
                return None

        try:
            limit = self._max_references * self._max_file + _TEXT_BYTES
            async with aclosing(_limited(request, limit)) as chunks:
                await multipart.read_form(
                    chunks,
                    form,
                    content_type=kind.encode("latin-1"),
                    keep=keep,
                    judge=self._console.references.judge,
                    max_references=self._max_references,
                )
            token = str(form.fields.pop("csrf", ""))
            check_form(self._console, request, visitor.session, token)
            yield
        except AcceptanceInDoubt:  # what a task may refer to stays
            raise
        except Exception:  # not when cancelled: the task may have been accepted by then
            await self._discard(form.uploads)
            raise

    async def _picked(self, visitor: Visitor, said: Said) -> list[Kept]:
        """The images of the account that are to be references, each kept anew for this task.

        Raises:
            errors.InvalidRequest: one of them is not there.

        """
        assets = await self._studios.own(visitor, said.picked)
        if gone := said.pictures - len(assets):
            raise InvalidRequest(
                f"{told_gone(gone)} Choose another, or generate without.", param="image_input"
            )
        kept: list[Kept] = []
        try:
            for asset in assets:
                async with self._console.asset_store.open(asset.key) as chunks:
                    kept.append(
                        await self._console.assets.keep(
                            chunks,
                            account_id=visitor.account_id,
                            kind="reference",
                            max_bytes=asset.bytes,
                        )
                    )
        except BaseException:
            await self._discard(kept)
            raise
        return kept

    async def _discard(self, kept: Sequence[Kept]) -> None:
        await self._console.assets.discard([each.asset for each in kept])

    async def _with_reference(self, visitor: Visitor, said: Said, word: str) -> Said:
        asset_id = decode("asset", word)
        found = [] if asset_id is None else await self._studios.own(visitor, [asset_id])
        if not found:
            raise PageError(404, "There is no picture with this id in this account.")
        return said.having(**{PICKED + word: "1"})

    # What goes out

    async def _page(
        self,
        request: Request,
        visitor: Visitor,
        said: Said,
        *,
        live: LiveTask | None = None,
        problem: Problem | None = None,
        recent: Sequence[Task] = (),
    ) -> Response:
        """The page; for htmx what of the form may change, or all of it after a refusal."""
        studio = await self._studios.of(request, visitor, said, problem=problem)
        tiles = list(tiles_of(recent))[:_RECENT]
        values: dict[str, Any] = {"studio": studio, "live": live, "recent": tiles}
        if problem is None:
            return self._console.render.page(
                request, "playground/page.html", fragment="playground/_changed.html", **values
            )
        response = self._console.render.page(
            request,
            "playground/page.html",
            fragment="playground/_refused.html",
            status=problem.status,
            **values,
        )
        if problem.retry_after is not None:
            response.headers["retry-after"] = str(problem.retry_after)
        response.headers["hx-retarget"] = "#ask"
        response.headers["hx-reswap"] = "outerHTML"
        return response


def _said_with(form: multipart.Form) -> Said:
    """What a form says, and that its files came, for which a price may be another."""
    return Said.of({**form.fields, f"{OURS}uploads": len(form.uploads)})


async def _limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(f"The form has more than {limit} bytes; send fewer pictures.")
            yield chunk
