"""Models as tables of the docs page: parameters, limits, prices and sizes."""

from collections.abc import Iterable, Sequence
from html import escape

from calotype.api.docs_page.markup import inline
from calotype.api.openapi.requests import dependency_words, file_size, written
from calotype.domain.catalog import NO_CHOICE, RESOLUTION, Model, Parameter
from calotype.domain.channel import Channel
from calotype.domain.money import format_usd


def overview(models: Sequence[Model]) -> str:
    """All models in one table, to choose by."""
    rows = "".join(
        f'<tr role="row"><th role="rowheader" scope="row">'
        f'<a href="#model-{model.id}">{escape(model.name)}</a></th>'
        f'<td role="cell"><code>{model.id}</code></td>'
        f'<td role="cell" data-label="Resolutions:">{escape(resolutions(model))}</td>'
        f'<td role="cell" class="num" data-label="References:">{reference_limit(model)}</td>'
        f'<td role="cell" class="num" data-label="USDC per image:">{price_range(model)}</td></tr>'
        for model in models
    )
    heads = "".join(
        f'<th role="columnheader" scope="col">{head}</th>'
        for head in ("Model", "Id", "Resolutions", "References", "USDC per image")
    )
    return (
        '<table class="stack" role="table"><thead role="rowgroup">'
        f'<tr role="row">{heads}</tr></thead><tbody role="rowgroup">{rows}</tbody></table>'
    )


def model_card(model: Model, channels: Sequence[Channel]) -> str:
    """Everything about one model."""
    return (
        f'<article class="model" id="model-{model.id}"><header>'
        f'<img src="v1/models/brands/{model.brand}/image" width="44" height="44" alt="" '
        'loading="lazy">'
        f"<div><h3>{escape(model.name)}</h3><p><code>{model.id}</code></p></div></header>"
        f"<p>{escape(model.description)}</p>"
        f'<div class="cols"><div>{_parameters(model)}{_sizes(model)}</div>'
        f'<div class="aside">{_prices(model)}{_limits(model, channels)}</div></div></article>'
    )


def resolutions(model: Model) -> str:
    """Those to choose from."""
    chosen = [each for each in model.parameters if each.name == RESOLUTION]
    return ", ".join(str(value) for value in chosen[0].enum) if chosen else "one"


def reference_limit(model: Model) -> str:
    """How many reference images it takes."""
    most = model.references.max_items
    return f"up to {most}" if most else "none"


def price_range(model: Model) -> str:
    """From its cheapest image to its dearest, in USDC."""
    prices = sorted({tier.price_micro_usdc for tier in model.pricing.tiers})
    return " to ".join(format_usd(price) for price in (prices[0], prices[-1])[: len(prices)])


def _parameters(model: Model) -> str:
    if not model.parameters:
        return "<p>No parameters beside the common fields.</p>"
    rows = "".join(
        f'<tr role="row"><th role="rowheader" scope="row"><code>{parameter.name}</code></th>'
        f'<td role="cell" class="values">{_values(parameter)}'
        f'<span class="hint">{inline(_meaning(parameter))}</span></td>'
        f'<td role="cell" data-label="Default:">{_default(parameter)}</td></tr>'
        for parameter in model.parameters
    )
    heads = "".join(
        f'<th role="columnheader" scope="col">{head}</th>'
        for head in ("Parameter", "Values", "Default")
    )
    return (
        '<table class="stack" role="table"><thead role="rowgroup">'
        f'<tr role="row">{heads}</tr></thead><tbody role="rowgroup">{rows}</tbody></table>'
    )


def _values(parameter: Parameter) -> str:
    if parameter.enum:
        return " ".join(
            f"<code{' class=default' if value == parameter.default else ''}>"
            f"{escape(written(value))}</code>"
            for value in parameter.enum
        )
    if parameter.type == "boolean":
        return "<code>true</code> <code>false</code>"
    if parameter.type == "string":
        return f"text of up to {_grouped(parameter.max_length or 0)} characters"
    return f"{parameter.type} from {parameter.minimum} to {parameter.maximum}"


def _meaning(parameter: Parameter) -> str:
    return f"{parameter.description} {dependency_words(parameter)}".rstrip()


def _default(parameter: Parameter) -> str:
    if parameter.default is None:
        return "none"
    return f"<code>{escape(written(parameter.default))}</code>"


def _prices(model: Model) -> str:
    tiers = [(escape(tier.label), _usdc(tier.price_micro_usdc)) for tier in model.pricing.tiers]
    return f"<div><h4>Price per image</h4>{_pairs(tiers)}</div>"


def _usdc(micro: int) -> str:
    return f"{format_usd(micro)} USDC"


def _limits(model: Model, channels: Sequence[Channel]) -> str:
    pairs = [
        ("Prompt", f"up to {_grouped(model.prompt.max_length)} characters"),
        ("Images per request", "1" if model.n.maximum == 1 else f"up to {model.n.maximum}"),
        ("References", reference_limit(model)),
    ]
    if model.references.max_items:
        kinds = [kind.removeprefix("image/").upper() for kind in model.references.content_types]
        pairs.append(("Each of them", f"{', '.join(kinds)}, {file_size(model)}"))
    pairs.append(("Usually ready after", f"{model.eta_seconds} s"))
    if channels:
        named = ", ".join(f"{escape(each.name)} (<code>{each.id}</code>)" for each in channels)
        pairs.append(("Channels", named))
    return f"<div><h4>Limits</h4>{_pairs(pairs)}</div>"


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return f'<dl class="limits">{items}</dl>'


def _sizes(model: Model) -> str:
    """Pixels by aspect ratio and resolution, folded away."""
    columns = list(dict.fromkeys(name for row in model.sizes.values() for name in row))
    heads = "".join(
        f'<th scope="col">{"Pixels" if name == NO_CHOICE else escape(name)}</th>'
        for name in columns
    )
    rows = "".join(
        f'<tr><th scope="row">{"any" if ratio == NO_CHOICE else escape(ratio)}</th>'
        + "".join(f"<td>{_pixels(row.get(name))}</td>" for name in columns)
        + "</tr>"
        for ratio, row in model.sizes.items()
    )
    return (
        "<details><summary>Sizes in pixels</summary>"
        '<div class="scroll" tabindex="0" role="region" '
        f'aria-label="Sizes of {escape(model.name)} in pixels"><table class="sizes">'
        f'<thead><tr><th scope="col">Ratio</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _pixels(size: tuple[int, int] | None) -> str:
    return "none" if size is None else f"{size[0]} \N{MULTIPLICATION SIGN} {size[1]}"


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")
