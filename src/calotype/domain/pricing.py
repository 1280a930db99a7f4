"""What a task costs, by the same tiers that discovery shows."""

from collections.abc import Mapping

from calotype.domain.catalog import Model, Tier, Value
from calotype.domain.channel import Served
from calotype.domain.errors import InternalError


def price(
    model: Model, parameters: Mapping[str, Value], n: int, served: Served | None = None
) -> int:
    """The price of ``n`` images in micro-USDC.

    Args:
        model: an entry of the catalog.
        parameters: as ``validation.normalise`` returns them, defaults filled in.
        n: how many images.
        served: how a channel serves the model; its price, where it has one, takes the place of
            the catalog's.

    Raises:
        errors.InternalError: no tier holds, so the parameters were never normalised; or the
            channel's prices were never judged.

    """
    own = None if served is None else served.price
    if isinstance(own, int):
        return own * n
    for tier in model.pricing.tiers:
        if not tier.when or tier.holds(parameters):
            return (tier.price_micro_usdc if own is None else _of_tier(own, tier, model)) * n
    raise InternalError(f"The catalog has no price for this request of {model.id}.")


def cancelled(model: Model, unit: int) -> int:
    """What is charged for one image of this price that was made although the client cancelled."""
    return unit * model.cancellation.percent // 100


def _of_tier(prices: Mapping[str, int], tier: Tier, model: Model) -> int:
    if tier.id not in prices:
        raise InternalError(f"The channel has no price for {tier.id} of {model.id}.")
    return prices[tier.id]
