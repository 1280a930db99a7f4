"""What the shell offers after Tab: models, parameters with their values, tasks.

Nothing here may print or fail: what cannot be found out is not offered.
"""

import asyncio
import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:  # importing them takes longer than a person waits for Tab
    from calotype.domain.catalog import Catalog, Model
    from calotype.settings import Settings

Offers = list[tuple[str, str]]
"""Words, each with what to say about it."""

_TASKS: Final = 50
_ABOUT: Final = 60
_PATIENCE_SECONDS: Final = 1.5
"""How long Tab may take for a server's answer."""


def models(context: typer.Context, incomplete: str) -> Offers:
    """Ids of models; of those that need a channel, those that one serves."""
    from calotype.judging import judged
    from calotype.settings import SettingsError

    if (settings := _settings(context)) is None or (found := _catalog(settings)) is None:
        return []
    try:
        channels = judged(settings, found)
    except SettingsError:
        channels = ()
    named = {name for channel in channels for name in channel.models or ()}
    entries = found.offered(named).models.values()
    return _beginning(((model.id, model.name) for model in entries), incomplete)


def parameters(context: typer.Context, incomplete: str) -> Offers:
    """``name=`` of the chosen model's parameters, and after that its values."""
    model = _model(context)
    if model is None:
        return []
    name, equals, _ = incomplete.partition("=")
    if not equals:
        names = ((f"{one.name}=", one.description) for one in model.parameters)
        return _beginning(names, incomplete)
    return _beginning(((f"{name}={value}", "") for value in _values(model, name)), incomplete)


def aspect_ratios(context: typer.Context, incomplete: str) -> Offers:
    """Values of the chosen model."""
    return _of_parameter(context, "aspect_ratio", incomplete)


def resolutions(context: typer.Context, incomplete: str) -> Offers:
    """Values of the chosen model."""
    return _of_parameter(context, "resolution", incomplete)


def output_formats(context: typer.Context, incomplete: str) -> Offers:
    """Values of the chosen model."""
    return _of_parameter(context, "output_format", incomplete)


def stored_tasks(context: typer.Context, incomplete: str) -> Offers:
    """Ids of the newest tasks in the embedded database of this machine."""
    from calotype.domain.ids import encode
    from calotype.settings import Settings, SettingsError
    from calotype.store.sqlite import connection

    try:
        settings = Settings.load(file=context.find_root().params.get("config"))
        if settings.shared_database:
            return []
        reader = connection.connect(settings.database_path, read_only=True)
    except (SettingsError, OSError, sqlite3.Error):
        return []
    try:
        rows = reader.execute(
            "SELECT id, model FROM tasks ORDER BY id DESC LIMIT ?", (_TASKS,)
        ).fetchall()
    except sqlite3.Error:
        return []
    finally:
        reader.close()
    return _beginning(((encode("task", number), model) for number, model in rows), incomplete)


def own_tasks(context: typer.Context, incomplete: str) -> Offers:
    """Ids of the account's newest tasks, as the server tells them."""
    from calotype.client import AsyncCalotype, CalotypeError

    base_url, api_key = context.params.get("base_url"), context.params.get("api_key")

    async def ask() -> list[tuple[str, str]]:
        async with (
            asyncio.timeout(_PATIENCE_SECONDS),
            AsyncCalotype(api_key, base_url, pauses=()) as client,
        ):
            tasks = client.tasks(limit=_TASKS)
            return [(task.id, f"{task.state}, {task.model}") async for task in tasks]

    try:
        found = asyncio.run(ask())
    except (CalotypeError, ValueError, TimeoutError):
        return []
    return _beginning(found, incomplete)


def _of_parameter(context: typer.Context, name: str, incomplete: str) -> Offers:
    model = _model(context)
    values = _values(model, name) if model else ()
    return _beginning(((value, "") for value in values), incomplete)


def _model(context: typer.Context) -> "Model | None":
    settings = _settings(context)
    found = _catalog(settings) if settings else None
    chosen = context.params.get("model")
    return found.models.get(chosen) if found and isinstance(chosen, str) else None


def _settings(context: typer.Context) -> "Settings | None":
    from calotype.settings import Settings, SettingsError

    try:
        return Settings.load(file=context.find_root().params.get("config"))
    except SettingsError:
        return None


def _catalog(settings: "Settings") -> "Catalog | None":
    from calotype.catalog import CatalogError, load_catalog

    try:
        return load_catalog(settings.catalog_dir)
    except CatalogError:
        return None


def _values(model: "Model", name: str) -> Iterable[str]:
    for parameter in model.parameters:
        if parameter.name == name:
            yield from ("true", "false") if parameter.type == "boolean" else ()
            yield from (str(value) for value in parameter.enum)


def _beginning(offers: Iterable[tuple[str, str]], incomplete: str) -> Offers:
    return [(word, about[:_ABOUT]) for word, about in offers if word.startswith(incomplete)]
