"""What only Recraft has: a bill in credits."""

from typing import Any

import pytest

from calotype.domain.outcomes import Done
from providers.bed import Bed, developed
from providers.cases.recraft import PROTOCOL
from providers.fakes.images_api import changed
from providers.protocol import Protocol


@pytest.fixture
def protocol() -> Protocol:
    return PROTOCOL


@pytest.mark.parametrize(
    ("told", "cost"),
    [(35, 35_000), (7.5, 7_500), (0.0005, 1), (0, 0), ("35", None), (-1, None), (None, None)],
)
async def test_credits_are_thousandths_of_a_dollar(bed: Bed, told: Any, cost: int | None) -> None:
    async with bed.fake() as fake:
        fake.tamper = changed(lambda document: document | {"credits": told})
        done = await developed(bed.provider(bed.channel(fake)), bed.job())
    assert isinstance(done, Done)
    assert done.cost_micro_usdc == cost
