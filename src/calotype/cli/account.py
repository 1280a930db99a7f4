"""Commands of a client: which server, with which key, and what to tell when it refuses."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from calotype.cli import completion, show
from calotype.cli.faults import CommandFault
from calotype.cli.order import wrong

if TYPE_CHECKING:  # importing it takes longer than starting
    from calotype.client import AsyncCalotype, Calotype, CalotypeError

BASE_URL: Final = "http://127.0.0.1:8080"
"""Where a server listens unless it is told otherwise."""

BaseUrl = Annotated[
    str, typer.Option(envvar="CALOTYPE_BASE_URL", metavar="URL", help="The server.")
]
ApiKey = Annotated[
    str,
    typer.Option(
        envvar="CALOTYPE_API_KEY",
        metavar="KEY",
        help="From calotype keys create; better in the environment than on the command line.",
        show_default=False,
    ),
]

TaskId = Annotated[
    str,
    typer.Argument(
        metavar="TASK_ID",
        help="Such as task_1k0v3m8a0qz4e.",
        autocompletion=completion.own_tasks,
    ),
]


def client(base_url: str, api_key: str) -> "Calotype":
    """A client of a server.

    Raises:
        CommandFault: there is no key, or the server's address is none.

    """
    from calotype.client import Calotype

    try:
        return Calotype(_checked(api_key), base_url, on_retry=show.note)
    except ValueError as error:
        raise wrong(str(error)) from error


def async_client(base_url: str, api_key: str, *, note: Callable[[str], None]) -> "AsyncCalotype":
    """The same for a command that does several things at a time.

    Raises:
        CommandFault: there is no key, or the server's address is none.

    """
    from calotype.client import AsyncCalotype

    try:
        return AsyncCalotype(_checked(api_key), base_url, on_retry=note)
    except ValueError as error:
        raise wrong(str(error)) from error


@contextlib.contextmanager
def told() -> Iterator[None]:
    """A block whose failures of the client are told as a person needs them."""
    from calotype.client import CalotypeError

    try:
        yield
    except CalotypeError as error:
        raise fault(error) from error


def fault(error: "CalotypeError") -> CommandFault:
    """What to tell of a failure of the client."""
    from calotype.client import APIError, AuthenticationError, ConnectionFailed, TaskFailed

    match error:
        case AuthenticationError():
            return CommandFault(f"{error.message} ({error.code}; calotype keys create makes a key)")
        case APIError(code="unexpected_response"):
            return CommandFault(f"{error.message}, which is --base-url or CALOTYPE_BASE_URL here.")
        case ConnectionFailed(maybe_received=False):
            return CommandFault(
                f"{error}; start one with calotype serve, or name another with --base-url or "
                "CALOTYPE_BASE_URL."
            )
        case TaskFailed() if error.task.error is not None:
            cause = error.task.error
            again = " Trying again can help." if cause.retryable else ""
            return CommandFault(f"{cause.message} ({cause.code}){again}")
        case _:
            return CommandFault(str(error))


def _checked(api_key: str) -> str:
    if not api_key.strip():
        raise wrong(
            "There is no API key; make one with calotype keys create --name me --credits 10, "
            "and give it as CALOTYPE_API_KEY or --api-key."
        )
    return api_key
