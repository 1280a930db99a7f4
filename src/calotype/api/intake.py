"""What every route that takes image requests does with a body: fields, and references apart."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Final

from starlette.types import Receive, Scope

from calotype.api.body import body_type, check_length, read_json, stream
from calotype.api.context import Context, header
from calotype.domain.catalog import quoted
from calotype.domain.errors import (
    ReferenceTooLarge,
    UnsupportedMediaType,
    UnsupportedReferenceType,
)
from calotype.domain.keys import ApiKey
from calotype.domain.task import Reference
from calotype.services.assets import Kept
from calotype.services.multipart import (
    FILE_FIELD,
    Form,
    read_file,
    read_form,
    too_many_references,
)
from calotype.services.submission import AcceptanceInDoubt

FORM_TEXT: Final = 4 * 1024 * 1024
"""Bytes of a form beyond its files."""


class Intake:
    """Reads requests for images, within what the catalog's models take at most."""

    def __init__(self, context: Context) -> None:
        self._context = context
        references = [model.references for model in context.catalog.models.values()]
        self._max_references = max(reference.max_items for reference in references)
        self._max_file = max(reference.max_bytes for reference in references)
        self._max_form = self._max_references * self._max_file + FORM_TEXT

    async def json(
        self, scope: Scope, receive: Receive
    ) -> tuple[dict[str, object], list[Reference]]:
        """The fields of a JSON body, and the references that it names."""
        fields = await read_json(scope, receive)
        return fields, self.references(fields)

    def references(self, fields: dict[str, object]) -> list[Reference]:
        """Take the references out of a request as JSON, judged; unread where there are too many."""
        urls = fields.pop("image_input", None)
        if isinstance(urls, list) and len(urls) > self._max_references:
            raise too_many_references(self._max_references)
        return self._context.references.judge(urls)

    @asynccontextmanager
    async def form(
        self, scope: Scope, receive: Receive, key: ApiKey, *, content_type: bytes
    ) -> AsyncIterator[Form]:
        """A form, its files stored; they are removed again when what is done with it raises."""
        check_length(scope, limit=self._max_form)
        form = Form({}, [])
        try:
            async with aclosing(stream(receive, limit=self._max_form)) as chunks:
                await read_form(
                    chunks,
                    form,
                    content_type=content_type,
                    keep=partial(
                        self._context.assets.keep,
                        account_id=key.account_id,
                        kind="reference",
                        max_bytes=self._max_file,
                    ),
                    judge=self._context.references.judge,
                    max_references=self._max_references,
                )
            yield form
        except AcceptanceInDoubt:  # what a task may refer to stays
            raise
        except Exception:  # not when cancelled: the task may have been accepted by then
            await self._context.assets.discard([upload.asset for upload in form.uploads])
            raise

    async def file(self, scope: Scope, receive: Receive, key: ApiKey) -> Kept:
        """The image that a body is, or that it holds as a form, stored."""
        check_length(scope, limit=self._max_file + FORM_TEXT)
        keep = partial(
            self._context.assets.keep,
            account_id=key.account_id,
            kind="reference",
            max_bytes=self._max_file,
        )
        kind, content_type = body_type(scope)
        form = Form({}, [])
        try:
            async with aclosing(stream(receive, limit=self._max_file + FORM_TEXT)) as chunks:
                if kind == "multipart/form-data":
                    await read_file(chunks, form, content_type=content_type, keep=keep)
                elif kind.startswith("image/") or kind == "application/octet-stream":
                    form.references.append(await keep(chunks))
                else:
                    raise UnsupportedMediaType(  # noqa: TRY301 -- as what reading it raises
                        f"Content-Type is {quoted(kind)}; send multipart/form-data with the image "
                        f"as {FILE_FIELD}, or the image itself as image/png, image/jpeg or "
                        "image/webp."
                    )
        except Exception as error:
            await self._context.assets.discard([upload.asset for upload in form.uploads])
            if isinstance(error, ReferenceTooLarge | UnsupportedReferenceType):
                error.param = FILE_FIELD
            raise
        return form.uploads[0]


def idempotency_key(scope: Scope) -> str | None:
    """The key that the client gave its request."""
    key = header(scope, b"idempotency-key")
    return None if key is None else key.decode("latin-1")
