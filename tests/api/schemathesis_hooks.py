"""What schemathesis cannot know from the document alone; it loads this file itself.

``known.json``, in the folder it runs in, names a finished task, an image's signed URL, two files,
and a website of our own, which has a picture at every path and takes webhooks.
"""

import itertools
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import schemathesis
from hypothesis import strategies
from PIL import Image
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree
from schemathesis.transport.serialization import Binary

from calotype.api.batch import MAX_REQUESTS
from calotype.domain.errors import InvalidParameter
from calotype.domain.urls import parse_reference_url

DRAWN_EVERY: Final = 50
"""One submission in so many is developed to a picture, which costs a second of computing."""
_REFUSED: Final = " sandbox:refuse"
_ROOM: Final = 780
"""A prompt of so many characters has room for a word more, for every model."""
_EVENT: Final = re.compile(r"[0-9]+", re.ASCII)
"""Numbers of events far from here: after them a stream has nothing to tell for ages."""
_FETCHED: Final = ("image_input", "image_input[]")
_CALLED: Final = ("callback_url", "url")
_BEYOND_SCHEMAS: Final = {
    "too_many_references",  # counts files and URLs together
    "content_policy_violation",  # what a held request is told of a prompt that asks for it
}
_TASK: Final = "/v1/tasks/{task_id}"
_BATCH: Final = "/v1/images/generations/batch"
_OPENAI: Final = "/openai/v1/images/"
_OPENAI_FIELDS: Final = {
    *("model", "prompt", "image", "image[]", "stream", "partial_images", "response_format"),
    *("user", "n", "size", "quality", "output_format", "background"),
}
"""Those that the document names; any other is refused by a model that does not declare it."""
_OF_THE_MODEL: Final = {"n", "size", "quality", "output_format", "background", "image_input"}
"""What each model takes differently where the document has one schema; the last is ``image``."""
_SECONDS: Final = {str(seconds) for seconds in range(1, 61)}

_known: Final[dict[str, Any]] = json.loads(Path("known.json").read_text())
_orders, _submissions, _turns = itertools.count(1), itertools.count(1), itertools.count()


def _files() -> dict[str, Binary]:
    """Files by a word that stands for each: its generator cannot judge bytes against a schema."""
    files = {}
    for kind in ("PNG", "JPEG", "WEBP"):
        out = BytesIO()
        Image.new("RGB", (32, 24), "teal").save(out, kind)
        files[f"the {kind}"] = Binary(out.getvalue())
    return files


_FILES: Final = _files()
schemathesis.openapi.format("binary", strategies.sampled_from(sorted(_FILES)))


@schemathesis.hook
def before_call(_context: HookContext, case: Case[Any], _kwargs: dict[str, Any]) -> None:
    """Change a request so that it says the same and costs less, or reaches what there is."""
    meta = case.meta  # read once: once something is changed, reading it judges the case anew
    sound = meta is not None and meta.generation.mode.is_positive
    # A step of a scenario has its ids from the answers before it.
    linked = meta is not None and meta.phase.name is TestPhase.STATEFUL
    headers, query = case.headers, case.query
    if headers.get("Idempotency-Key") == "order-7391-cover":  # the document's example, for all
        headers["Idempotency-Key"] = f"order-{next(_orders)}"
    if headers.get("Prefer") == "wait=30":
        headers["Prefer"] = "wait=0"
    if str(query.get("wait")) in _SECONDS:
        query["wait"] = type(query["wait"])(1)
    for place, name in ((headers, "Last-Event-ID"), (query, "last_event_id")):
        if sound and isinstance(place.get(name), str):
            place[name] = _EVENT.sub(lambda digits: str(int(digits[0]) % 10), place[name])
    if sound and case.operation.path.startswith(_OPENAI) and isinstance(case.body, dict):
        case.body = {name: case.body[name] for name in case.body if name in _OPENAI_FIELDS}
    case.body = _sent(case.body, sound=sound, draw=next(_submissions) % DRAWN_EVERY == 0)
    if sound and not linked and next(_turns) % 2:  # the other half meets 404 and 403
        _reach(case)
    # What was sound or unsound before is so still; else each edited case would be judged anew, and
    # one whose header was left out taken for a sound one.
    case._record_starting_state()


@schemathesis.hook
def filter_failure(
    _context: HookContext, failure: Failure, case: Case[Any], response: Response
) -> bool:
    """Whether a failure is one: what JSON Schema cannot say is no fault of a document."""
    if isinstance(failure, UseAfterFree):  # deleting takes a task's images; the task stays
        return not case.operation.path.startswith(_TASK)
    if isinstance(failure, AcceptedNegativeData) and case.operation.path == _BATCH:
        return not _refused_in_place(case.body, response.json()["data"])
    if not isinstance(failure, RejectedPositiveData) or response.status_code != 400:
        return True
    told = response.json()
    if case.operation.path.startswith(_OPENAI):
        told = told["error"]
        if told["param"] in _OF_THE_MODEL:
            return False
    if _known["reference"] in told["message"]:  # another call found it in the list and deleted it
        return False
    return told.get("code") not in _BEYOND_SCHEMAS


def _refused_in_place(body: Any, answers: list[dict[str, Any]]) -> bool:
    """Whether a batch is sound but for its entries, and one of these was refused."""
    match body:
        case {"requests": [_, *_] as requests, **others} if not others:
            return len(requests) <= MAX_REQUESTS and any("error" in each for each in answers)
    return False


def _at_home(text: str) -> str:
    """The same URL of our own website, where the server would take it and call someone else."""
    try:
        url = parse_reference_url(text, allow_hosts=frozenset({"127.0.0.1"}))
    except InvalidParameter:
        return text
    # As long as it was, lest what is too long were taken after all.
    return f"{_known['website']}{url.target}".ljust(len(text), "x")


def _sent(value: Any, *, sound: bool, draw: bool) -> Any:
    """A body with files, pictures from our own website, and prompts that end without a picture."""
    if isinstance(value, str):
        return _FILES[value] if value in _FILES else _at_home(value)
    if isinstance(value, list):
        return [_sent(each, sound=sound, draw=draw) for each in value]
    if not isinstance(value, dict):
        return value
    sent = {name: _sent(each, sound=sound, draw=draw) for name, each in value.items()}
    prompt = sent.get("prompt")
    if isinstance(prompt, str) and prompt.strip() and len(prompt) < _ROOM and not draw:
        sent["prompt"] = prompt + _REFUSED
    for name in _FETCHED if sound else ():
        if isinstance(sent.get(name), list):
            ways = itertools.cycle([_known["website"], _known["reference"]])
            sent[name] = [each for _, each in zip(sent[name], ways, strict=False)]
    for name in _CALLED if sound else ():
        if isinstance(sent.get(name), str):
            sent[name] = _known["website"]
    if sound and isinstance(sent.get("metadata"), str):  # a form, where it is JSON as text
        sent["metadata"] = json.dumps({"said": sent["metadata"].replace("\0", "")[:512]})
    return sent


def _reach(case: Case[Any]) -> None:
    """Name a task, an image or a file that exists."""
    if "file_id" in (case.path_parameters or {}):
        case.path_parameters = {**case.path_parameters, "file_id": _known["file_id"]}
    if "task_id" in (case.path_parameters or {}):
        case.path_parameters = {**case.path_parameters, "task_id": _known["task_id"]}
    if case.operation.path == "/v1/assets/{name}":
        case.path_parameters = {**case.path_parameters, "name": _known["name"]}
        case.query = {**(case.query or {}), **_known["query"]}
