"""The page that lists every limit says what the code has."""

import multipart

from calotype.api import batch, callbacks, mcp, patience, task_list, waiting
from calotype.api.body import MAX_JSON_BYTES
from calotype.api.intake import FORM_TEXT
from calotype.cli.serve import KEEP_ALIVE_SECONDS
from calotype.console import forms, throttle
from calotype.domain import options
from calotype.domain.urls import MAX_URL_CHARS
from calotype.domain.webhooks import MAX_URL_BYTES
from calotype.services.multipart import MAX_PARTS, MAX_TEXT_BYTES
from calotype.services.references import FETCHES_PER_ACCOUNT
from calotype.services.submission import MAX_IDEMPOTENCY_KEY
from calotype.settings import Settings
from unit.test_docs import tables, text_of

SETTINGS = Settings()


def size(count: int) -> str:
    """Bytes as the page writes them."""
    unit, name = (1024 * 1024, "MiB") if count % (1024 * 1024) == 0 else (1024, "KiB")
    assert count % unit == 0
    return f"{count // unit} {name}"


def documented() -> dict[str, tuple[str, ...]]:
    """Limit → value, what happens beyond it, and who changes it."""
    found = list(tables(text_of("concepts/limits.md")))
    assert {tuple(header) for header, _ in found} == {("limit", "value", "beyond it", "changed by")}
    return {name: tuple(rest) for _, rows in found for name, *rest in rows}


def test_every_value_is_that_of_the_code() -> None:
    seconds = f"{SETTINGS.client_seconds:g} s"
    expected = {
        "first line and headers of a request": size(patience.MAX_HEAD),
        "headers of a request": str(patience.MAX_HEADERS),
        "time for a head": seconds,
        "time for a body": seconds,
        "time in which no byte of an answer is taken": seconds,
        "time between two requests": f"{KEEP_ALIVE_SECONDS} s",
        "connections of a process": f"open files less {patience.RESERVED_FILES}",
        "JSON body": size(MAX_JSON_BYTES),
        "JSON body of a batch": size(batch.MAX_BYTES),
        "requests of a batch": str(batch.MAX_REQUESTS),
        "parts of a form": str(MAX_PARTS),
        "headers of a part": str(multipart.PushMultipartParser("b").max_header_count),
        "text field of a form": size(MAX_TEXT_BYTES),
        "form beside its files": size(FORM_TEXT),
        "references of a request, bytes and pixels of each": "of the model",
        "prompt": "of the model",
        "URL of a reference": f"{MAX_URL_CHARS} characters",
        "URL of a webhook": f"{MAX_URL_BYTES} bytes",
        "metadata": f"{options.MAX_PAIRS} pairs",
        "key of metadata": f"{options.MAX_KEY} characters",
        "value of metadata": f"{options.MAX_VALUE} characters",
        "`Idempotency-Key`": f"{MAX_IDEMPOTENCY_KEY} characters",
        "`wait`": f"{waiting.MAX_WAIT} s",
        "page of a list": str(task_list.MAX_LIMIT),
        "message to `/mcp`": size(mcp.MAX_BYTES),
        "callback of an upstream": size(callbacks.MAX_CALLBACK_BYTES),
        "form of the console": size(forms.MAX_BYTES),
        "unfinished tasks of an account": str(SETTINGS.account_tasks),
        "tasks of an account at once, and that many more with every minute": "none",
        "tasks of a key at once, and that many more with every minute": "none",
        "unfinished tasks of a key": "none",
        "spending of a key in a UTC day or month": "none",
        "references of an account that are fetched at once, in one process": str(
            FETCHES_PER_ACCOUNT
        ),
        "tries at signing in, from one address": f"{throttle.OF_ADDRESS} a minute",
        "tries at the operator's password, from everywhere": f"{throttle.OF_ALL} a minute",
    }
    assert {name: told[0] for name, told in documented().items()} == expected
    assert SETTINGS.account_per_minute == 0
    assert f"{patience.MIN_RATE} bytes a second" in text_of("concepts/limits.md")


def test_every_limit_says_what_happens_beyond_it_and_who_changes_it() -> None:
    assert all(all(told) for told in documented().values())
