"""Headers of requests and answers, as components that operations refer to."""

from calotype.api.openapi.shapes import Schema
from calotype.services.submission import MAX_IDEMPOTENCY_KEY


def answer_headers() -> dict[str, Schema]:
    """The headers of answers, by component name."""
    said = {
        "Accept-Ranges": ("`bytes`.", {"type": "string"}),
        "Allow": ("The methods that the path has.", {"type": "string"}),
        "Cache-Control": ("How long a copy may be kept.", {"type": "string"}),
        "Content-Disposition": ("The name to save the image by.", {"type": "string"}),
        "Content-Range": ("Which part this is, and of how many bytes.", {"type": "string"}),
        "Content-Security-Policy": ("What the page may load.", {"type": "string"}),
        "ETag": ("Names this version; send it as `If-None-Match`.", {"type": "string"}),
        "Location": (
            "Path of what was made, or where an image is.",
            {"type": "string", "format": "uri-reference"},
        ),
        "Preference-Applied": ("The `wait` that was kept to.", {"type": "string"}),
        "RateLimit": (
            "What a submission leaves of the key's or account's bucket: `r` tasks, full in `t` s.",
            {"type": "string", "examples": ['"key";r=59;t=1']},
        ),
        "RateLimit-Policy": (
            "The rate of a key or account: a bucket of `q` tasks that refills in `w` seconds.",
            {"type": "string", "examples": ['"key";q=60;w=60']},
        ),
        "Retry-After": ("Seconds after which to try again.", {"type": "integer", "minimum": 0}),
        "WWW-Authenticate": ("How to authenticate.", {"type": "string"}),
        "X-Calotype-Task-Id": ("Id of the task.", {"type": "string"}),
        "X-Request-Id": ("The client's own id where it is sane, else ours.", {"type": "string"}),
    }
    return {name: {"description": text, "schema": schema} for name, (text, schema) in said.items()}


def request_headers() -> dict[str, Schema]:
    """The headers of requests that several operations share, by component name."""
    return {
        "Idempotency-Key": {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same key with the same request gives the same task again, with "
            "another request 409. Printable ASCII; kept 24 hours at least, per account.",
            "schema": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_IDEMPOTENCY_KEY,
                "pattern": "^[!-~]([ -~]*[!-~])?$",
                "examples": ["order-7391-cover"],
            },
        },
        "If-None-Match": {
            "name": "If-None-Match",
            "in": "header",
            "description": "The `ETag` of the copy at hand.",
            "schema": {"type": "string"},
        },
        "X-Request-Id": {
            "name": "X-Request-Id",
            "in": "header",
            "description": "Your own id of the request, to find it again in logs. Letters, digits "
            "and `._:-`, up to 128; anything else is replaced by an id of ours.",
            "schema": {"type": "string", "examples": ["checkout-42"]},
        },
    }
