"""POST /openai/v1/images/generations and /openai/v1/images/edits."""

from collections.abc import Mapping, Sequence
from typing import Final

from starlette.types import Receive, Scope, Send

from calotype.api.allowance import tell_account, tell_allowance
from calotype.api.body import media_type
from calotype.api.context import Context, authenticate
from calotype.api.intake import Intake, idempotency_key
from calotype.api.openai.answers import Kind
from calotype.api.openai.errors import in_doubt
from calotype.api.openai.fields import Asked, translate
from calotype.api.openai.held import Held
from calotype.api.openai.retries import Tries, Try
from calotype.domain.catalog import Model
from calotype.domain.errors import (
    InvalidParameter,
    MissingField,
    UnsupportedMediaType,
    UnsupportedParameter,
)
from calotype.domain.keys import ApiKey
from calotype.domain.task import Reference
from calotype.services.assets import Kept
from calotype.services.scopes import check_model
from calotype.services.submission import AcceptanceInDoubt, Accepted

_MEDIA_TYPES: Final[Mapping[Kind, str]] = {
    "image_generation": "application/json",
    "image_edit": "multipart/form-data",
}
_OVERLAYS: Final = ("mask", "markup")


class Images:
    """One of the two routes, as an ASGI application."""

    def __init__(self, context: Context, intake: Intake, tries: Tries, *, kind: Kind) -> None:
        self._context = context
        self._intake = intake
        self._tries = tries
        self._kind: Kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept a task, and hold the request open until the task ends."""
        key = await authenticate(scope, self._context.accounts)
        with self._tries.one(scope) as this:
            try:
                asked, accepted = await self._accepted(scope, receive, key, this)
            except AcceptanceInDoubt as error:
                await in_doubt(error).response()(scope, receive, send)
                return
            tell_account(scope, accepted.task.allowance)
            held = Held(self._context, scope, receive, send, kind=self._kind, asked=asked)
            await held.until_ended(accepted.task.task_id)
            this.told = held.told

    async def _accepted(
        self, scope: Scope, receive: Receive, key: ApiKey, this: Try
    ) -> tuple[Asked, Accepted]:
        try:
            content_type = self._content_type(scope)
            if self._kind == "image_edit":
                return await self._from_form(scope, receive, key, content_type, this)
            return await self._from_json(scope, receive, key, this)
        finally:
            await tell_allowance(scope, key, self._context.accounts)

    def _content_type(self, scope: Scope) -> bytes:
        kind, content_type = media_type(scope)
        if kind != _MEDIA_TYPES[self._kind]:
            raise UnsupportedMediaType(f"Send {_MEDIA_TYPES[self._kind]} here, not {kind}.")
        return content_type

    async def _from_json(
        self, scope: Scope, receive: Receive, key: ApiKey, this: Try
    ) -> tuple[Asked, Accepted]:
        fields, references = await self._intake.json(scope, receive)
        asked = translate(self._model(key, fields), fields, text=False)
        return asked, await self._submit(scope, key, asked, references, this)

    async def _from_form(
        self, scope: Scope, receive: Receive, key: ApiKey, content_type: bytes, this: Try
    ) -> tuple[Asked, Accepted]:
        try:
            async with self._intake.form(scope, receive, key, content_type=content_type) as form:
                if not form.references:
                    raise MissingField(
                        "image is required: send at least one, as 'image' or 'image[]'.",
                        param="image",
                    )
                asked = translate(self._model(key, form.fields), form.fields, text=True)
                return asked, await self._submit(scope, key, asked, form.references, this)
        except InvalidParameter as error:
            if error.param not in _OVERLAYS:
                raise
            raise UnsupportedParameter(
                f"No model here takes a {error.param}; leave it out, and say in the prompt what "
                "is to change.",
                param=error.param,
            ) from None

    async def _submit(
        self,
        scope: Scope,
        key: ApiKey,
        asked: Asked,
        references: Sequence[Reference | Kept],
        this: Try,
    ) -> Accepted:
        submission, text = self._context.submission, self._kind == "image_edit"
        order = idempotency_key(scope)
        if order is None:
            digest = submission.fingerprint(asked.fields, references=references, text=text)
            order = await this.implied_key(key.account_id, digest)
        return await submission.submit(
            key,
            asked.fields,
            references=references,
            text=text,
            request_id=scope["state"]["request_id"],
            idempotency_key=order,
        )

    def _model(self, key: ApiKey, fields: Mapping[str, object]) -> Model | None:
        name = fields.get("model")
        check_model(key, self._context.catalog, name)
        return self._context.catalog.models.get(name) if isinstance(name, str) else None
