"""What leaves us: each example arrives as the upstream's documentation wants it."""

import pytest

from calotype.domain.outcomes import Accepted, Done
from providers.bed import PROMPT, Bed, protocols, reference
from providers.protocol import Example, Protocol

EXAMPLES = [
    pytest.param(protocol, example, id=f"{protocol.provider}-{number}-{example.model}")
    for protocol in protocols().values()
    for number, example in enumerate(protocol.examples)
]


@pytest.mark.parametrize(("protocol", "example"), EXAMPLES)
async def test_model_prompt_parameters_and_references_arrive(
    protocol: Protocol, example: Example, bed: Bed
) -> None:
    assert protocol is bed.protocol
    async with bed.fake() as fake:
        outcome = await bed.observed(fake, example).submit(bed.job(example))
    assert isinstance(outcome, Accepted | Done), outcome
    fake.assert_sound()
    (order,) = fake.bought
    read = fake.understand(order.call)
    assert (read.model, read.prompt) == (example.reads_model, PROMPT)
    assert dict(read.fields) == example.reads
    assert read.references == tuple(reference(index) for index in range(example.references))


async def test_an_example_has_two_references_and_one_has_none(protocol: Protocol) -> None:
    counts = {example.references for example in protocol.examples}
    assert protocol.examples[0].references == 0
    assert max(counts) > 1 or not takes_references(protocol)


def takes_references(protocol: Protocol) -> bool:
    return any(example.references for example in protocol.examples)
