"""What the upstreams of the Images API family have in common: one POST, answered with images."""

import base64
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

from providers.fakes.base import Fake, Order, Phase, Understood, image
from providers.fakes.exchange import Call, Reply

Fields = Mapping[str, Any]
MAX_REFERENCES: Final = 16


def problem(
    status: int,
    code: str | None,
    message: str,
    *,
    kind: str = "invalid_request_error",
    headers: Mapping[str, str] | None = None,
    bought: bool = False,
) -> Reply:
    """An error as OpenAI writes it."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Reply(status, {"error": error}, headers=headers or {}, bought=bought)


def changed(change: Callable[[Any], Any]) -> Callable[[Reply], Reply]:
    """For ``Fake.tamper``: every JSON document goes out changed."""
    return lambda reply: (
        reply if reply.body is not None else replace(reply, document=change(reply.document))
    )


def stream(*events: Mapping[str, Any]) -> Reply:
    """An answer in events."""
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return Reply(body=body.encode(), content_type="text/event-stream")


def draft() -> dict[str, Any]:
    """The event of a draft."""
    return {"type": "image_generation.partial_image", "partial_image_index": 0, **_drawn(1)}


def final() -> dict[str, Any]:
    """The event that ends a stream well."""
    return {"type": "image_generation.completed", **_drawn(0)}


def _drawn(index: int) -> dict[str, str]:
    return {"b64_json": base64.b64encode(image(index)).decode()}


class ImagesApi(Fake):
    """Reads JSON without references and a form with them, and answers at once."""

    known: ClassVar[Collection[str]] = ()
    """The fields that there are, references apart; any other one is an error."""

    def understand(self, call: Call) -> Understood:
        if call.path.endswith("/edits"):
            fields, references = self._form(call)
        else:
            assert call.headers["content-type"] == "application/json"
            fields, references = self._inline(call)
        strange = fields.keys() - set(self.known)
        assert not strange, f"the API has no {', '.join(strange)}"
        model, prompt = fields.pop("model", ""), fields.pop("prompt")
        self.judge(fields, edits=bool(references))
        return Understood(model, prompt, fields, references)

    def judge(self, fields: Fields, *, edits: bool) -> None:
        """Refuse what the documentation does not allow."""

    def told(self, order: Order, phase: Phase) -> Reply:  # noqa: ARG002 -- the base's
        raise AssertionError("there are no jobs to ask about")

    def _inline(self, call: Call) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        """The fields of a JSON document, and the references among them."""
        return dict(call.document), ()

    @staticmethod
    def _form(call: Call) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        files = [part for part in call.parts if part.filename is not None]
        assert 1 <= len(files) <= MAX_REFERENCES
        wanted = "image" if len(files) == 1 else "image[]"
        for file in files:
            assert file.name == wanted
            assert file.content_type in {"image/png", "image/jpeg", "image/webp"}
        texts = [part for part in call.parts if part.filename is None]
        fields = {part.name: part.text for part in texts}
        assert len(fields) == len(texts), "a field came twice"
        return fields, tuple(file.data for file in files)
