"""What a task costs, by the same tiers that discovery shows."""

from collections.abc import Mapping

from calotype.domain.catalog import Model, Value
from calotype.domain.errors import InternalError


def price(model: Model, parameters: Mapping[str, Value], n: int) -> int:
    """The price of ``n`` images in micro-USDC.

    Args:
        model: an entry of the catalog.
        parameters: as ``validation.normalise`` returns them, defaults filled in.
        n: how many images.

    Raises:
        errors.InternalError: no tier holds, so the parameters were never normalised.

    """
    for tier in model.pricing.tiers:
        if not tier.when or tier.holds(parameters):
            return tier.price_micro_usdc * n
    raise InternalError(f"The catalog has no price for this request of {model.id}.")
