"""The OpenAPI document against the router, the error tables, and validation itself."""

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from starlette.routing import Route

from calotype.api.openapi import build_document
from calotype.api.openapi import errors as notes
from calotype.api.openapi.requests import FORM, JSON, component
from calotype.api.render import SLUGS, STATUSES
from calotype.app import build_app
from calotype.catalog import load_catalog
from calotype.core import build_core
from calotype.domain.catalog import Catalog, Model, Parameter
from calotype.domain.channel import Channel, Served
from calotype.domain.clock import system_clock
from calotype.domain.errors import FAILURES, CalotypeError
from calotype.domain.files import named_asset, reference_of
from calotype.domain.health import Breakers
from calotype.domain.options import read_options
from calotype.domain.task import BillingStatus, Request, State
from calotype.domain.urls import judge_reference_url
from calotype.domain.validation import check_reference_count, normalise
from calotype.services.routing import Router
from calotype.settings import Settings

CATALOG = load_catalog()
CHANNELS = Router(
    [
        Channel(id=11, slug="a", name="A", provider="sandbox"),
        Channel(
            id=12, slug="b", name="B", provider="sandbox", models={"gpt-image-2": Served(id="x")}
        ),
    ],
    upstreams=CATALOG.upstreams,
    breakers=Breakers(),
    chance=random.SystemRandom(),
    clock=system_clock,
)
DOCUMENT = build_document(CATALOG, CHANNELS.serving, public_url="")
SCHEMAS = DOCUMENT["components"]["schemas"]
MODELS = list(CATALOG.models.values())
PUBLIC = partial(judge_reference_url, allow_hosts=frozenset())
NOT_OF_ONE_OPERATION = {
    "unknown_route",
    "method_not_allowed",
    "head_too_large",
    "request_timeout",
}


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    )


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_document_is_sound_openapi() -> None:
    validate(DOCUMENT)


def test_a_document_without_any_model_is_sound_too() -> None:
    validate(build_document(Catalog(models={}, marks={}), CHANNELS.serving, public_url=""))


async def test_the_document_has_every_route_and_no_other(tmp_path: Path) -> None:
    app: Any = build_app(build_core(Settings(data_dir=tmp_path)), with_worker=False)
    served = {
        (route.path_format, method.lower())
        for route in app._rest.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert {(path, method) for path, method, _ in operations()} == served


def test_every_operation_has_its_own_id_and_tells_of_its_tag() -> None:
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(ids)) == len(ids)
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    assert {tag for _, _, operation in operations() for tag in operation["tags"]} == tags


def test_every_code_is_listed_and_explained() -> None:
    error, failed = SCHEMAS["Error"]["properties"], SCHEMAS["TaskError"]["properties"]
    assert set(error["code"]["enum"]) == set(STATUSES) == set(notes.REFUSALS)
    assert set(failed["code"]["enum"]) == set(FAILURES) == set(notes.FAILURES)
    assert set(error["error"]["enum"]) == set(SLUGS.values())


def test_every_code_stands_with_the_operations_that_raise_it_under_its_status() -> None:
    told = set()
    for _, _, operation in operations():
        for status, response in operation["responses"].items():
            for code in response.get("x-codes", ()):
                assert str(STATUSES[code]) == status
                assert f"`{code}`" in response["description"]
                told.add(code)
    assert told == set(STATUSES) - NOT_OF_ONE_OPERATION


def test_every_answer_carries_the_request_id_and_errors_have_the_one_shape() -> None:
    for _, _, operation in operations():
        for status, response in operation["responses"].items():
            assert "X-Request-Id" in response["headers"]
            if status >= "400":
                schema = response["content"]["application/json"]["schema"]["$ref"]
                names = {"Error", "NotReady", "OpenAiError", "RpcError"}
                assert schema.rpartition("/")[2] in names
            if status in {"429", "503"}:
                assert "Retry-After" in response["headers"]


def test_a_key_is_asked_for_where_the_contract_asks_for_one() -> None:
    public = {path for path, _, operation in operations() if operation.get("security") == []}
    assert {path for path, _, _ in operations()} - public == {
        "/v1/images/generations",
        "/v1/images/generations/batch",
        "/v1/tasks",
        "/v1/tasks/{task_id}",
        "/v1/tasks/{task_id}/cancel",
        "/v1/tasks/{task_id}/events",
        "/v1/tasks/{task_id}/webhook",
        "/v1/tasks/{task_id}/webhook/redeliver",
        "/v1/webhooks",
        "/v1/webhooks/rotate",
        "/v1/webhooks/deliveries",
        "/v1/events",
        "/v1/files",
        "/v1/files/{file_id}",
        "/v1/credits/balance",
        "/openai/v1/images/generations",
        "/openai/v1/images/edits",
        "/openai/v1/models",
        "/openai/v1/models/{model_id}",
        "/mcp",
    }


def test_the_states_are_those_of_the_task() -> None:
    task = SCHEMAS["Task"]["properties"]
    assert task["state"]["enum"] == [state.value for state in State]
    billing = SCHEMAS["Billing"]["properties"]
    assert billing["status"]["enum"] == [status.value for status in BillingStatus]


@pytest.mark.parametrize("prefix", [JSON, FORM])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
def test_the_shortest_request_and_every_example_of_a_model_are_valid(
    model: Model, prefix: str
) -> None:
    shortest = {"model": model.id, "prompt": "a lighthouse"}
    for request in (shortest, *SCHEMAS[component(prefix, model.id)]["examples"]):
        validator(prefix).validate(request)
        normalise(CATALOG, request, text=False)


def test_the_typical_requests_are_shown_and_valid() -> None:
    body = DOCUMENT["paths"]["/v1/images/generations"]["post"]["requestBody"]["content"]
    shown = body["application/json"]["examples"]
    assert len(shown) == 3
    for example in shown.values():
        validator(JSON).validate(example["value"])


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({"resolution": "1K"}, True),
        ({"resolution": "2K"}, False),
        ({"aspect_ratio": "auto", "resolution": "2K"}, False),
        ({"aspect_ratio": None, "resolution": "2K"}, False),
        ({"aspect_ratio": "1:1", "resolution": "2K"}, True),
        ({"aspect_ratio": "1:1", "resolution": "4K"}, False),
        ({"aspect_ratio": "16:9", "resolution": "4K"}, True),
        ({"aspect_ratio": "21:9"}, False),
        ({"output_format": "png"}, False),
        ({"quality": "high"}, False),
        ({"response_format": "b64_json"}, False),
        ({"n": 2}, False),
    ],
)
def test_limits_that_depend_on_another_field_hold(fields: dict[str, Any], taken: bool) -> None:  # noqa: FBT001 -- a column of the table
    request = {"model": "gpt-image-2", "prompt": "a lighthouse", **fields}
    assert validator(JSON).is_valid(request) is taken


def accepts(fields: dict[str, Any], *, text: bool) -> bool:
    """Whether the server would take a request, by the services that judge it."""
    fields = dict(fields)
    urls = fields.pop("image_input", None)
    try:
        asked = normalise(CATALOG, fields, text=text)
        read_options(fields, text=text, judge_url=PUBLIC)
        model = CATALOG.get(asked.model)
        if urls is not None:
            if not isinstance(urls, list):
                return False
            for url in urls:
                if named_asset(url) is None:
                    judge_reference_url(url, allow_hosts=frozenset())
            check_reference_count(model, len(urls))
        request = Request(
            asked.model, asked.prompt, asked.n, asked.parameters, channel_id=asked.channel_id
        )
        CHANNELS.choose(model, request, [None for _ in urls or ()])
    except CalotypeError:
        return False
    return True


def values(parameter: Parameter) -> list[Any]:
    """Of a parameter: those it may have, and those just beside."""
    found: list[Any] = [*parameter.enum, "nonsense", "", None, True, 7, 1.25, [], {}]
    for bound in (parameter.minimum, parameter.maximum):
        if bound is not None:
            found += [bound, bound - 1, bound + 1]
    if parameter.max_length is not None:
        found += ["x" * parameter.max_length, "x" * (parameter.max_length + 1), "\0"]
    return found


def common(model: Model) -> Iterator[tuple[str, list[Any]]]:
    longest = "ä" * model.prompt.max_length
    yield "prompt", [longest, longest + "x", "", " \n", "\0", " \tx\n", "a\0b", None, 1, ["x"]]
    yield "n", [1, 0, -1, model.n.maximum, model.n.maximum + 1, None, "1", True, [1]]
    yield "response_format", ["url", "b64_json", "", None, 1]
    yield "channel_id", [11, 12, 13, 0, -1, None, "11", True]
    yield "async", [True, False, 0, 1, 2, "true", " FALSE ", "Yes", "oN", "t", "2", "", None, []]
    yield "model", ["no-such-model", "", None, 1]
    url, most = "https://example.com/a.png", max(1, model.references.max_items)
    lists: list[Any] = [[url] * most, [url] * (most + 1), ["ftp://example.com/a"], [1], url, None]
    lists += [[reference_of(7)], ["ASSET" + reference_of(8)[5:]], ["asset://x"], ["asset://"]]
    if model.references.max_items:  # else the field is not there, though nothing is not refused
        yield "image_input", [[], ["HTTP://example.com/a"], *lists]
    yield (
        "callback_url",
        ["https://example.com/a", "HTTP://example.com", "ftp://a.example", None, 1],
    )
    yield "deadline_seconds", [1, 86_400, 0, -1, 86_401, 1.0, 1.5, None, "1", True]
    pairs = [{}, {"a": ""}, {"ä" * 64: "ä" * 512}, {"a": "b" * 513}, {"a" * 65: ""}, {"": "b"}]
    wrong = [{"a": 1}, {"a": None}, {"a\0": "b"}, {"a": "\0"}, "{}", [], 1, True]
    many = [{str(number): "" for number in range(count)} for count in (16, 17)]
    yield "metadata", [*pairs, *wrong, *many, None]
    yield "no_such_field", ["x"]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
def test_the_document_takes_exactly_the_json_that_validation_takes(model: Model) -> None:
    judge = validator(component(JSON, model.id))
    base = {"model": model.id, "prompt": "a lighthouse"}
    requests: list[dict[str, Any]] = [
        {**base, name: value} for name, candidates in common(model) for value in candidates
    ]
    for parameter in model.parameters:
        requests += [{**base, parameter.name: value} for value in values(parameter)]
        for other in parameter.depends_on:
            leading = next(each for each in model.parameters if each.name == other)
            requests += [
                {**base, other: first, parameter.name: second}
                for first in values(leading)
                for second in values(parameter)
            ]
    for request in requests:
        assert judge.is_valid(request) is accepts(request, text=False), request


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
def test_the_document_takes_the_forms_that_validation_takes(model: Model) -> None:
    judge = validator(component(FORM, model.id))
    for parameter in model.parameters:
        for value in values(parameter):
            numeric = parameter.type in {"integer", "number"}
            if isinstance(value, int | float) is not numeric or not value or value is True:
                continue  # text that only counts as what it looks like
            fields = {"model": model.id, "prompt": "a lighthouse", parameter.name: value}
            sent = {name: str(each) for name, each in fields.items()}
            assert judge.is_valid(fields) is accepts(sent, text=True), fields


def test_a_form_may_carry_files_under_either_name() -> None:
    fields = SCHEMAS[component(FORM, "nano-banana-pro")]["properties"]
    assert fields["image"]["maxItems"] == fields["image_input"]["maxItems"] == 8
    assert not {"image", "image_input"} & set(
        SCHEMAS[component(FORM, "recraft-v4.1")]["properties"]
    )
    url, file = "https://example.com/a.png", "bytes"
    both = {"image": [file], "image[]": [file], "image_input": [url], "image_input[]": [url]}
    for model, good in (("nano-banana-pro", True), ("recraft-v4.1", False)):
        form = {"model": model, "prompt": "a lighthouse", **both}
        assert validator(FORM).is_valid(form) is good
    assert not validator(JSON).is_valid({**both, "model": "nano-banana-pro", "prompt": "x"})


@pytest.mark.parametrize("spelling", ["TRUE", "false", "1", "0", "On", "no", "Y"])
def test_async_is_taken_in_any_spelling(spelling: str) -> None:
    request = {"model": "gpt-image-2", "prompt": "a lighthouse", "async": spelling}
    assert validator(JSON).is_valid(request)
    assert validator(FORM).is_valid(request)


def test_every_example_of_an_answer_fits_its_schema() -> None:
    for name, schema in SCHEMAS.items():
        for example in schema.get("examples", ()):
            validator(name).validate(example)


def task(**fields: Any) -> dict[str, Any]:
    """A waiting task, changed by the fields."""
    done: dict[str, Any] = SCHEMAS["Task"]["examples"][0]
    waiting = {name: value for name, value in done.items() if name != "completed_at"}
    return {
        **waiting,
        "state": "waiting",
        "progress": 0,
        "result": {},
        "recommended_poll_interval_ms": 3500,
        "eta_hint_seconds": 30,
        **fields,
    }


FAILED = {"code": "upstream_failed", "message": "No.", "type": "upstream_error", "retryable": True}


@pytest.mark.parametrize(
    ("document", "good"),
    [
        (task(), True),
        (task(state="generating", progress=40, seen_by="an addition"), True),
        (task(state="done"), False),
        (task(state="success", progress=100, completed_at=1), False),
        (task(state="fail", error=FAILED, completed_at=1), True),
        (task(state="fail", error=FAILED), False),
        (task(state="fail", completed_at=1), False),
        (task(state="fail", error={**FAILED, "code": "other"}, completed_at=1), False),
        (task(error=FAILED), False),
        (task(progress=101), False),
        (task(created_at=1.5), False),
        (task(webhook_delivery={"state": "delivered", "attempts": 1, "last_status": 200}), True),
    ],
)
def test_a_task_goes_by_its_state(document: dict[str, Any], good: bool) -> None:  # noqa: FBT001 -- a column of the table
    assert validator("Task").is_valid(document) is good


def test_the_server_is_the_public_url_where_one_is_set() -> None:
    assert DOCUMENT["servers"] == [{"url": "/"}]
    public = build_document(CATALOG, CHANNELS.serving, public_url="https://images.example.com/x/")
    assert public["servers"] == [{"url": "https://images.example.com/x"}]
