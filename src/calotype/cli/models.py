"""``calotype models``: the catalog as discovery shows it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli import completion, session, show
from calotype.domain.money import format_usd

if TYPE_CHECKING:  # importing them takes longer than the command
    from calotype.core import Core
    from calotype.domain.catalog import Model, Parameter


def models(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="One model in detail.", autocompletion=completion.models),
    ] = None,
    *,
    json: Annotated[
        bool, typer.Option("--json", help="Print what GET /v1/models says, as JSON.")
    ] = False,
) -> None:
    """List the models that there are, or show one in detail: parameters, references, prices.

    Reads the catalog of this configuration; no server has to run.
    """
    from calotype.core import build_core
    from calotype.services.discovery import model_entry

    core = build_core(session.settings_of(context))
    found = list(core.catalog.models.values()) if model is None else [core.catalog.get(model)]
    entries = [model_entry(one, core.router.serving(one.id)) for one in found]
    if json:
        show.json({"object": "list", "data": entries} if model is None else entries[0])
    elif model is None:
        _overview(found)
    else:
        _details(core, found[0])


def _overview(found: "list[Model]") -> None:
    show.table(
        ["ID", "NAME", "BRAND", "RATIOS", "RESOLUTIONS", "REFS", "PRICE"],
        [
            [
                model.id if model.enabled else f"{model.id} (off)",
                model.name,
                model.brand,
                _choices(model, "aspect_ratio"),
                _choices(model, "resolution"),
                str(model.references.max_items),
                _prices(model),
            ]
            for model in found
        ],
        right=["REFS"],
    )


def _details(core: "Core", model: "Model") -> None:
    references = model.references
    channels = core.router.serving(model.id)
    show.pairs(
        {
            "id": model.id + ("" if model.enabled else " (switched off)"),
            "name": model.name,
            "brand": model.brand,
            "upstream id": model.upstream_id,
            "about": model.description,
            "prompt": f"up to {model.prompt.max_length} characters",
            "images": f"up to {model.n.maximum} a task (n)",
            "references": _references(references.max_items, references.max_bytes, references),
            "output": "as output_format says"
            if any(one.name == "output_format" for one in model.parameters)
            else model.output_format,
            "usual time": f"{model.eta_seconds} s",
            "prices": _prices(model),
            "channels": ", ".join(f"{one.slug} ({one.id})" for one in channels) or "none",
        }
    )
    if model.parameters:
        print()
        show.table(
            ["PARAMETER", "TYPE", "VALUES", "DEFAULT", "ABOUT"],
            [
                [
                    one.name,
                    one.type,
                    _values(one),
                    "" if one.default is None else _word(one.default),
                    one.description,
                ]
                for one in model.parameters
            ],
        )
    for line in _limits(model):
        print(show.plain(line))


def _limits(model: "Model") -> list[str]:
    """What of one parameter goes with which value of another."""
    return [
        f"{name}={value}: {parameter.name} is one of {', '.join(map(_word, allowed))}"
        for parameter in model.parameters
        for name, table in parameter.depends_on.items()
        for value, allowed in table.items()
    ]


def _references(count: int, size: int, references: Any) -> str:
    if count == 0:
        return "none"
    kinds = ", ".join(kind.removeprefix("image/").upper() for kind in references.content_types)
    return f"up to {count}: {kinds}, {show.size(size)} each"


def _choices(model: "Model", name: str) -> str:
    for parameter in model.parameters:
        if parameter.name == name:
            return " ".join(map(_word, parameter.enum)) or parameter.type
    return "-"


def _values(parameter: "Parameter") -> str:
    if parameter.enum:
        return " ".join(map(_word, parameter.enum))
    if parameter.minimum is not None or parameter.maximum is not None:
        least = "" if parameter.minimum is None else str(parameter.minimum)
        most = "" if parameter.maximum is None else str(parameter.maximum)
        return f"{least} … {most}".strip()
    return "" if parameter.max_length is None else f"up to {parameter.max_length} characters"


def _prices(model: "Model") -> str:
    tiers = model.pricing.tiers
    if len(tiers) == 1:
        return f"{format_usd(tiers[0].price_micro_usdc)} USDC"
    listed = ", ".join(f"{tier.label}: {format_usd(tier.price_micro_usdc)}" for tier in tiers)
    return f"{listed} USDC"


def _word(value: Any) -> str:
    """A value as a request would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
