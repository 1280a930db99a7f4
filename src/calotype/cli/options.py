"""Commands with more options than a function should have parameters."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def takes(form: type[T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Make a command of a function that takes one dataclass: each field is a parameter.

    Args:
        form: a dataclass whose fields are annotated as typer wants parameters annotated.

    """

    def decorate(body: Callable[[T], None]) -> Callable[..., None]:
        def command(**given: Any) -> None:
            body(form(**given))

        command.__name__ = body.__name__
        command.__doc__ = body.__doc__
        vars(command)["__signature__"] = _signature(form)
        return command

    return decorate


def _signature(form: type) -> inspect.Signature:
    hints = get_type_hints(form, include_extras=True)
    return inspect.Signature(
        [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_default(field),
                annotation=hints[field.name],
            )
            for field in dataclasses.fields(form)
        ]
    )


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    if field.default is not dataclasses.MISSING:
        return field.default
    return inspect.Parameter.empty
