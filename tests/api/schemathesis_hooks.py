"""What schemathesis cannot know from the document alone; it loads this file itself.

``known.json``, in the folder it runs in, names a finished task, an image's signed URL, and a
picture on a website of our own.
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
from schemathesis.core.parameters import ParameterLocation
from schemathesis.openapi.checks import RejectedPositiveData
from schemathesis.transport.serialization import Binary

DRAWN_EVERY: Final = 50
"""One submission in so many is developed to a picture, which costs a second of computing."""
_REFUSED: Final = " sandbox:refuse"
_ROOM: Final = 700
"""A prompt of so many characters has room for a word more, for every model."""
_EVENT: Final = re.compile(r"[0-9]+", re.ASCII)
"""Numbers of events far from here: after them a stream has nothing to tell for ages."""
_FETCHED: Final = ("image_input", "image_input[]")
_CALLED: Final = ("callback_url", "url")
_BEYOND_SCHEMAS: Final = {
    "too_many_references",  # counts files and URLs together
    "content_policy_violation",  # what our own word in the prompt asks for
}
_OPAQUE: Final = {"cursor"}
"""Fields whose values only the server makes."""
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
    sound = case.meta is not None and case.meta.generation.mode.is_positive
    body_is_sound = case.meta is not None and not case.meta.is_negative_at(ParameterLocation.BODY)
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
    draw = next(_submissions) % DRAWN_EVERY == 0
    case.body = _sent(case.body, sound=body_is_sound, draw=draw)
    if sound and next(_turns) % 2:  # the other half meets 404 and 403
        _reach(case)
    # What was sound or unsound before is so still; else each edited case would be judged anew, and
    # one whose header was left out taken for a sound one.
    case._record_starting_state()


@schemathesis.hook
def filter_failure(
    _context: HookContext, failure: Failure, case: Case[Any], response: Response
) -> bool:
    """Whether a failure is one: what JSON Schema cannot say is no fault of a document."""
    if isinstance(failure, AcceptedNegativeData):
        return not case.operation.path.endswith("/batch")  # which refuses its parts one by one
    if not isinstance(failure, RejectedPositiveData):
        return True
    refusal = response.json()
    if isinstance(refusal["error"], dict):  # OpenAI's shape
        refusal = refusal["error"]
    return refusal["code"] not in _BEYOND_SCHEMAS and refusal.get("param") not in _OPAQUE


def _sent(value: Any, *, sound: bool, draw: bool) -> Any:
    """A body with files, pictures from our own website, and prompts that end without a picture."""
    if isinstance(value, str):
        return _FILES.get(value, value)
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
            sent[name] = [_known["website"] for _ in sent[name]]
    for name in _CALLED if sound else ():
        if isinstance(sent.get(name), str):
            sent[name] = _known["website"]
    return sent


def _reach(case: Case[Any]) -> None:
    """Name a task or an image that exists."""
    if "task_id" in (case.path_parameters or {}):
        case.path_parameters = {**case.path_parameters, "task_id": _known["task_id"]}
    if case.operation.path == "/v1/assets/{name}":
        case.path_parameters = {**case.path_parameters, "name": _known["name"]}
        case.query = {**(case.query or {}), **_known["query"]}
