"""What each error code means to the one who meets it: cause and cure, in words.

``api/render.py`` and ``domain/errors.py`` say which codes there are; a test fails when one of
them is not explained here, or when something is explained that does not exist.
"""

from typing import Final

import msgspec


class Note(msgspec.Struct, frozen=True):
    """Why a code comes, and what to do about it; `backticks` mark names."""

    cause: str
    cure: str


_NOTHING: Final = Note("", "")

REFUSALS: Final = {
    "missing_field": Note(
        "`model` or `prompt` is absent, null or blank; or a batch has no `requests`, or an upload "
        "no `file`.",
        "Send it; `param` names the one at fault.",
    ),
    "invalid_parameter": Note(
        "A field has a value that this model does not take, or that does not go with another; or a "
        "parameter of the query cannot be read, or an `asset://` names no image of the account.",
        "Take one of the values that `message` lists; the model's own table has them all.",
    ),
    "unsupported_parameter": Note(
        "The model declares no such field, or takes no reference images; or a list or a batch has "
        "nothing of this name.",
        "Leave it out; `message` lists what there is.",
    ),
    "unsupported_response_format": Note(
        "`response_format` is something other than `url`.",
        "Send `url` or nothing, and download the image from `result.data[].url`.",
    ),
    "unknown_model": Note(
        "No model that is switched on has this id.",
        "Take an id from `GET /v1/models`.",
    ),
    "unknown_channel": Note(
        "The channel that `channel_id` pins does not serve this model.",
        "Take one of the model's `available_channels`, or let the gateway choose.",
    ),
    "too_many_references": Note(
        "Files and URLs together are more than the model takes.",
        "Send fewer; the model's `reference_input.max_items` is the limit.",
    ),
    "reference_too_large": Note(
        "A reference image has too many bytes or pixels.",
        "Scale it down; the model's `reference_input.max_bytes` is the limit of a file.",
    ),
    "unsupported_reference_type": Note(
        "A reference is no image of a type that the model takes, or is cut short. Its content "
        "counts, not its name or declared type.",
        "Send a whole JPEG, PNG, WebP, GIF or AVIF file, or HEIC where discovery names it.",
    ),
    "malformed_body": Note(
        "The body is no JSON object, or no form that can be parsed.",
        "Look at `message`: it says where parsing ended. Text must be UTF-8.",
    ),
    "unsupported_media_type": Note(
        "`Content-Type` is neither `application/json` nor `multipart/form-data`; a batch takes "
        "JSON only, an upload a form or an image.",
        "Say what the body is.",
    ),
    "body_too_large": Note(
        "The body, one of its text fields or the number of its parts is over the limit.",
        "Send less; give large references as URLs, or as files of a form.",
    ),
    "head_too_large": Note(
        "The request's first line and its headers are too long, or too many.",
        "Send fewer and shorter headers; a long prompt belongs into the body.",
    ),
    "request_timeout": Note(
        "The request came too slowly, and the connection is closed. Nothing was accepted.",
        "Send it again; large references are better uploaded once, or given as URLs.",
    ),
    "range_not_satisfiable": Note(
        "The `Range` begins beyond the end of the image.",
        "Ask within the size that `Content-Range` tells, or for the whole image.",
    ),
    "idempotency_conflict": Note(
        "This `Idempotency-Key` was used before, with another request.",
        "Use a new key for a new request, and an old one only to send the same request again.",
    ),
    "task_not_final": Note(
        "The task is still being developed, so its images cannot be deleted yet.",
        "Cancel it first, or wait until it is final.",
    ),
    "missing_api_key": Note(
        "No API key came with the request.",
        "Send `Authorization: Bearer ck_…`.",
    ),
    "invalid_api_key": Note(
        "The API key is malformed, unknown, expired or revoked.",
        "Check that it is complete, or create a new one.",
    ),
    "insufficient_balance": Note(
        "The price of the task is more than the account has available; or a file is uploaded "
        "while it has nothing available.",
        "Add credit, or wait until running tasks give back what they do not use.",
    ),
    "spend_limit_reached": Note(
        "The API key has spent, reserved sums included, what it may in this UTC day or month, or "
        "the request costs more than that.",
        "Wait for the seconds in `Retry-After`; without it no wait helps, so use another key.",
    ),
    "model_not_allowed": Note(
        "The API key may not use this model.",
        "Take one of those that `message` lists, or another key.",
    ),
    "channel_not_allowed": Note(
        "The API key may not use the channel that `channel_id` pins, or none that serves the "
        "model.",
        "Take one of those that `message` lists, or another key.",
    ),
    "invalid_signature": Note(
        "The image's URL was changed, or was never made by this server.",
        "Read the task again, it carries a fresh URL; use it as it is, query and all.",
    ),
    "url_expired": Note(
        "The image's URL is past its time.",
        "Read the task again, it carries a fresh URL.",
    ),
    "unknown_route": Note(
        "There is nothing at this path.",
        "Check the path and the base URL; no path ends in a slash.",
    ),
    "method_not_allowed": Note(
        "The path exists, but not with this method.",
        "Use one that the `Allow` header names.",
    ),
    "task_not_found": Note(
        "No task has this id, or it belongs to another account.",
        "Check the id, and that the key is of the account that submitted the task.",
    ),
    "asset_not_found": Note(
        "The image is no longer stored.",
        "Make it anew; download images soon after a task succeeds.",
    ),
    "file_not_found": Note(
        "No file has this id, or it belongs to another account; or it was deleted or has expired.",
        "Upload it again by `POST /v1/files`; the same bytes may give another id.",
    ),
    "brand_not_found": Note(
        "No brand has this name.",
        "Take the `brand_image_url` of a model.",
    ),
    "callback_not_found": Note(
        "No channel of this name asks for callbacks.",
        "Set `callbacks = true` for the channel, or take the callback's URL away upstream.",
    ),
    "model_not_found": Note(
        "No model has this id.",
        "Take an id from `GET /v1/models`.",
    ),
    "webhook_not_found": Note(
        "The task has no webhook, or has none to send again yet.",
        "Send `callback_url`, or set the account's URL by `PUT /v1/webhooks`.",
    ),
    "rate_limit_reached": Note(
        "The bucket of the API key or its account is empty: it may submit so many tasks at once, "
        "and more with every minute.",
        "Wait for the seconds in `Retry-After`; `RateLimit` tells beforehand what is left.",
    ),
    "queue_full": Note(
        "The API key or its account has as many unfinished tasks as it may.",
        "Wait until some have ended, or cancel some; then send the request again.",
    ),
    "internal_error": Note(
        "Something broke on our side.",
        "Try again; if it stays, tell the operator the `X-Request-Id`.",
    ),
    "service_unavailable": Note(
        "A part that the request needs does not answer right now, or no channel that it may use "
        "takes new tasks. Nothing was accepted.",
        "Try again after the seconds in `Retry-After`; an `Idempotency-Key` makes that safe.",
    ),
}
"""Codes with which a request is refused."""

FAILURES: Final = {
    "reference_fetch_failed": Note(
        "A reference could not be fetched from its URL.",
        "Check that anyone can open the URL without logging in, or upload the file.",
    ),
    "reference_gone": Note(
        "A reference image was deleted before the task was sent: the file or the result that "
        "`asset://` named, or an upload.",
        "Upload it again, and submit a new request.",
    ),
    "reference_too_large": REFUSALS["reference_too_large"],
    "unsupported_reference_type": REFUSALS["unsupported_reference_type"],
    "content_policy_violation": Note(
        "The upstream declined prompt or references by its policy.",
        "Change them; the same request is declined again.",
    ),
    "upstream_rejected": Note(
        "The upstream does not take the request as it stands.",
        "Change the parameters, or pin another channel; tell the operator if neither helps.",
    ),
    "upstream_failed": Note(
        "The upstream accepted the task and could not finish it.",
        "Submit it again, as a new request.",
    ),
    "upstream_rate_limited": Note(
        "The upstream was over its limits for as long as the task could wait.",
        "Submit it again later, or pin another channel.",
    ),
    "upstream_unavailable": Note(
        "The upstream did not answer for as long as the task could wait.",
        "Submit it again later, or pin another channel.",
    ),
    "upstream_malformed_response": Note(
        "What the upstream gave back is no image.",
        "Submit it again; tell the operator if it stays.",
    ),
    "upstream_outcome_unknown": Note(
        "The connection broke while the task was being sent, and nobody can tell whether the "
        "upstream took it. It was not sent twice.",
        "Submit it again if you still want the image.",
    ),
    "local_out_of_memory": Note(
        "The picture does not fit into the memory of the machine that was to draw it.",
        "Ask for a smaller one, with fewer references, or pin another channel.",
    ),
    "deadline_exceeded": Note(
        "There was no image within the time that the model has, or `deadline_seconds` gave it.",
        "Submit it again; a lower resolution is quicker.",
    ),
    "cancelled": Note(
        "The task was cancelled, by its client or at the upstream.",
        "Submit it again if you still want the image; `billing` says what cancelling cost.",
    ),
    "no_channel_available": Note(
        "The model or its channels were switched off while the task waited.",
        "Look at `GET /v1/models` for what there is, and submit again.",
    ),
    "internal_error": REFUSALS["internal_error"],
}
"""Codes with which an accepted task fails; only ``cancelled`` is ever charged."""


def refusal(code: str) -> Note:
    """What is known of a code of a refused request."""
    return REFUSALS.get(code, _NOTHING)


def failure(code: str) -> Note:
    """What is known of a code of a failed task."""
    return FAILURES.get(code, _NOTHING)
