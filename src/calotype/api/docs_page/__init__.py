"""GET /docs: the OpenAPI document as a page to read, in one file, without a script.

``static/docs.html`` is the page and its prose, ``static/docs.css`` its looks; what stands in the
document or the catalog is filled in here, once. Only the server's own address is put in per
request, where no public URL is set.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

import calotype
from calotype.api.context import base_url
from calotype.api.docs_page.markup import as_json, as_shell, field_name, inline, prose
from calotype.api.docs_page.models import model_card, overview
from calotype.api.openapi import Document
from calotype.api.openapi.errors import Note, failure, refusal
from calotype.api.openapi.requests import FIELDS, REQUIRED, Channels
from calotype.api.render import STATUSES, Answer, cacheable, unless_known
from calotype.domain.catalog import Catalog
from calotype.domain.errors import FAILURES

Schema = Mapping[str, Any]

_BASE: Final = "@base-url@"
"""Stands for the server's address until it is known."""
_SUBMIT: Final = "createGeneration"
_LINKED: Final = {"Model": "getModel"}
"""Schemas that are shown once, where this operation is, and linked from elsewhere."""
_KINDS: Final = {
    "model": "string",
    "prompt": "string",
    "image_input": "array of URLs",
    "image": "files",
    "n": "integer",
    "response_format": "string",
    "channel_id": "integer",
    "async": "boolean",
    "callback_url": "string",
    "metadata": "object of strings",
    "deadline_seconds": "integer",
}
_BESIDE: Final = {
    "image_input": "In a form: text fields `image_input` or `image_input[]`, one for each.",
    "image": "In a form only: file fields `image` or `image[]`, one for each.",
    "n": "Default 1; more than that only where the model says so.",
    "response_format": "Default `url`.",
    "metadata": "In a form a JSON object as text.",
}
_PER_MODEL: Final = (
    "Whatever the model declares: type, allowed values, default, and limits that depend on "
    "another field stand with each model below."
)


class _Shell(Template):
    """A template that leaves the dollars of shell commands alone."""

    delimiter = "§"


class DocsPage:
    """The page: public, cacheable, and under a policy that lets it load nothing from elsewhere."""

    def __init__(
        self, document: Document, catalog: Catalog, channels: Channels, *, public_url: str
    ) -> None:
        static = files("calotype.api") / "static"
        style = (static / "docs.css").read_text(encoding="utf-8")
        shell = _Shell((static / "docs.html").read_text(encoding="utf-8"))
        self._page = shell.substitute(_contents(document, catalog, channels), style=style)
        self._public_url = public_url
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'self' data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._headers = (
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", policy.encode()),
        )

    async def handle(self, request: Request) -> Response:
        """The page, with this server's address in its commands."""
        base = escape(base_url(request.scope, self._public_url))
        body = self._page.replace(_BASE, base).encode()
        return unless_known(request, cacheable(Answer(200, body, self._headers)))


def _contents(document: Document, catalog: Catalog, channels: Channels) -> dict[str, str]:
    models = [model for model in catalog.models.values() if model.enabled]
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = document["components"]["schemas"]
    states = schemas["Task"]["properties"]["state"]
    return {
        **_samples(document),
        "base": _BASE,
        "version": escape(calotype.__version__),
        "nav_endpoints": "".join(
            f'<li><a href="#{operation["operationId"]}">'
            f'<span class="verb {method}">{method.upper()}</span>'
            f"{escape(operation['summary'])}</a></li>"
            for _, method, operation in operations
        ),
        "nav_models": "".join(
            f'<li><a href="#model-{model.id}">{escape(model.name)}</a></li>' for model in models
        ),
        "states": "".join(
            f'<li class="{name}"><b>{name}</b>{inline(meaning)}</li>'
            for name, meaning in states["x-enumDescriptions"].items()
        ),
        "endpoints": "".join(_endpoint(document, *operation) for operation in operations),
        "overview": overview(models),
        "models": "".join(model_card(model, channels(model.id)) for model in models),
        "error_fields": _fields(_rows(document, schemas["Error"], shown_here="")),
        "refusals": _code_table(
            [(code, str(status), refusal(code)) for code, status in STATUSES.items()],
            column="Status",
            anchor="error",
        ),
        "failures": _code_table(
            [
                (code, "yes" if retryable else "no", failure(code))
                for code, (_, retryable) in FAILURES.items()
            ],
            column="Retryable",
            anchor="failure",
        ),
    }


def _samples(document: Document) -> dict[str, str]:
    """The commands of the quick start, with a request of this catalog."""
    submit = document["paths"]["/v1/images/generations"]["post"]["requestBody"]["content"]
    shown = submit["application/json"]["examples"]
    values = [shown[name]["value"] for name in ("shape", *shown) if name in shown]
    example = values[0] if values else {}
    asked = {name: value for name, value in example.items() if name not in _SAID_BY_DEFAULT}
    fields = (
        json.dumps(asked, indent=2, ensure_ascii=False).replace("\n", "\n  ").replace("'", "'\\''")
    )
    bearer = '-H "Authorization: Bearer $KEY"'
    commands = {
        "key": f"# on the server\nKEY=$(calotype keys create --name me --credits 10)\nBASE={_BASE}",
        "submit": f'TASK=$(curl -sS "$BASE/v1/images/generations" \\\n  {bearer} \\\n'
        '  -H "Content-Type: application/json" \\\n'
        '  -H "Idempotency-Key: lighthouse-1" \\\n'
        f"  -d '{fields}' | jq -r .task_id)\n"
        'echo "$TASK"',
        "poll": 'until STATE=$(curl -sS "$BASE/v1/tasks/$TASK" \\\n'
        f"    {bearer} | jq -r .state)\n"
        '  echo "$STATE"; [ "$STATE" = success ] || [ "$STATE" = fail ]\n'
        "do sleep 2; done",
        "download": f'URL=$(curl -sS "$BASE/v1/tasks/$TASK" {bearer} \\\n'
        "  | jq -r '.result.data[0].url')\n"
        'curl -sS -o lighthouse.png "$URL"',
        "upload": f'curl -sS "$BASE/v1/images/generations" {bearer} \\\n'
        f"  -F model={asked.get('model', '…')} \\\n"
        "  -F prompt='The same lighthouse in winter' \\\n"
        "  -F image=@lighthouse.png",
    }
    error = document["components"]["schemas"]["Error"]["examples"][0]
    return {
        "sample_error": as_json(error),
        **{f"sample_{name}": as_shell(command) for name, command in commands.items()},
    }


_SAID_BY_DEFAULT: Final = frozenset({"async", "n", "response_format", "image_input"})


def _endpoint(document: Document, path: str, method: str, operation: Schema) -> str:
    name = operation["operationId"]
    public = "" if operation.get("security") is None else '<span class="public">no key</span>'
    parts = [prose(operation["description"])]
    parts += _parameters(document, operation["parameters"])
    if name == _SUBMIT:
        parts += ["<h4>Body, JSON or form</h4>", _fields(_body_rows())]
    parts += _answer_fields(document, name, operation["responses"])
    parts += ["<h4>Answers</h4>", _answers(operation["responses"])]
    aside = _aside(document, operation)
    return (
        f'<article class="endpoint" id="{name}"><header>'
        f'<h3><span class="method {method}">{method.upper()}</span>{escape(path)}{public}</h3>'
        f"<p>{escape(operation['summary'])}</p></header>"
        f'<div class="cols"><div class="doc">{"".join(parts)}</div>{aside}</div></article>'
    )


def _parameters(document: Document, parameters: Sequence[Schema]) -> list[str]:
    """Those worth telling at each endpoint: the request id is told once, above."""
    found = [_resolve(document, parameter) for parameter in parameters]
    rows = [
        (each["name"], each["in"], each.get("required", False), each.get("description", ""))
        for each in found
        if each["name"] != "X-Request-Id"
    ]
    return ["<h4>Parameters</h4>", _fields(rows)] if rows else []


_Row = tuple[str, str, bool, str]
"""Name, kind, whether it must be there, and what it means."""


def _body_rows() -> Iterator[_Row]:
    for name, meaning in FIELDS.items():
        more = _BESIDE.get(name, "")
        yield name, _KINDS[name], name in REQUIRED, f"{meaning} {more}".rstrip()
    yield "aspect_ratio, resolution, …", "per model", False, _PER_MODEL


def _answer_fields(document: Document, operation: str, responses: Schema) -> list[str]:
    for status, response in responses.items():
        schema = response.get("content", {}).get("application/json", {}).get("schema", {})
        if status.startswith("2") and "$ref" in schema:
            rows = _rows(document, _resolve(document, schema), shown_here=operation)
            return [f"<h4>Fields of the answer {status}</h4>", _fields(rows)]
    return []


def _rows(
    document: Document, schema: Schema, *, shown_here: str, prefix: str = ""
) -> Iterator[_Row]:
    """Every field of a schema, those of fields under their path."""
    for name, given in schema.get("properties", {}).items():
        path, field = f"{prefix}{name}", _resolve(document, given)
        said = field.get("description", "")
        inner, target = field, given
        if "items" in field:
            path, target = f"{path}[]", field["items"]
            inner = _resolve(document, target)
            said = said or inner.get("description", "")
        linked = _LINKED.get(target.get("$ref", "").rpartition("/")[2])
        if linked is not None and linked != shown_here:
            yield path, _kind(field), False, f"{said} The fields are those of one model."
            continue
        yield path, _kind(field), False, f"{said} {_choices(field)}".strip()
        yield from _rows(document, inner, shown_here=shown_here, prefix=f"{path}.")


def _choices(schema: Schema) -> str:
    """The values there are, where nothing else tells them."""
    if "enum" not in schema or "x-enumDescriptions" in schema:
        return ""
    return f"One of {', '.join(f'`{value}`' for value in schema['enum'])}."


def _kind(schema: Schema) -> str:
    kind = schema.get("type", "any")
    return kind if isinstance(kind, str) else " or ".join(kind)


def _answers(responses: Schema) -> str:
    items = []
    for status, response in responses.items():
        said = response["description"].partition("\n")[0]
        links = " ".join(
            f'<li><a href="#error-{code}"><code>{code}</code></a></li>'
            for code in response.get("x-codes", ())
        )
        good = "ok" if status < "400" else "no"
        items.append(
            f'<li><span class="status {good}">{status}</span><div><p>{inline(said)}</p> '
            f"{f'<ul>{links}</ul>' if links else ''}</div></li>"
        )
    return f'<ul class="answers">{"".join(items)}</ul>'


def _aside(document: Document, operation: Schema) -> str:
    """Requests and an answer to look at, where there are any."""
    blocks: list[tuple[str, Any]] = []
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    blocks += [(each["summary"], each["value"]) for each in body.get("examples", {}).values()]
    for status, response in operation["responses"].items():
        schema = response.get("content", {}).get("application/json", {}).get("schema", {})
        examples = _resolve(document, schema).get("examples")
        if status.startswith("2") and examples:
            blocks.append((f"Answer {status}", examples[0]))
    if not blocks:
        return ""
    shown = "".join(
        f"<h4>{escape(title)}</h4>"
        f'<pre class="sample" tabindex="0"><code>{as_json(value)}</code></pre>'
        for title, value in blocks
    )
    return f'<div class="aside">{shown}</div>'


def _fields(rows: Iterator[_Row] | Sequence[_Row]) -> str:
    items = "".join(
        f"<div><dt>{field_name(name)}{' <b>required</b>' if required else ''}</dt>"
        f"<dd><span>{escape(kind)}</span> {inline(meaning)}</dd></div>"
        for name, kind, required, meaning in rows
    )
    return f'<dl class="fields">{items}</dl>'


def _code_table(rows: Sequence[tuple[str, str, Note]], *, column: str, anchor: str) -> str:
    body = "".join(
        f'<tr role="row" id="{anchor}-{code}"><th role="rowheader" scope="row">'
        f"<code>{code}</code></th>"
        f'<td role="cell" class="num" data-label="{column}:">{mark}</td>'
        f'<td role="cell">{inline(note.cause)}</td><td role="cell">{inline(note.cure)}</td></tr>'
        for code, mark, note in rows
    )
    heads = "".join(
        f'<th role="columnheader" scope="col">{head}</th>'
        for head in ("Code", column, "Cause", "Cure")
    )
    return (
        '<table class="stack codes" role="table"><thead role="rowgroup">'
        f'<tr role="row">{heads}</tr></thead><tbody role="rowgroup">{body}</tbody></table>'
    )


def _resolve(document: Document, schema: Schema) -> Schema:
    """What a reference points to; anything else as it is."""
    if "$ref" not in schema:
        return schema
    found: Any = document
    for step in schema["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    pointed: Schema = found
    return pointed
