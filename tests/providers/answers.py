"""Answers that nobody documented, and what becomes of a send that is answered so."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    PollOutcome,
    Refused,
    SourceError,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from providers.bed import Bed, content, opened_bed
from providers.fakes.exchange import Reply
from providers.protocol import Protocol

OUTCOMES: Final = Accepted | Done | Refused | TryLater | Failed | Unknown
"""Of a send."""
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def documents(words: Sequence[str], strange: Sequence[str]) -> st.SearchStrategy[Any]:
    """Larger ones, with these names of fields and these texts in them."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.sampled_from([10**400, -1, 2**63])
        | st.floats()
        | st.sampled_from(strange)
        | st.text(max_size=20)
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(words) | st.text(max_size=5), inner, max_size=5)
        ),
        max_leaves=30,
    )


async def submitted(bed: Bed, reply: Reply) -> Any:
    """The outcome of a send that is answered so."""
    async with bed.fake() as fake:
        fake.tamper = lambda _: reply
        return await bed.provider(bed.channel(fake)).submit(bed.job())


async def come_to(bed: Bed, reply: Reply) -> SubmitOutcome | PollOutcome:
    """What a send answered so comes to in the end, its images read where there are any."""
    async with bed.fake() as fake:
        fake.tamper = lambda _: reply
        provider, job = bed.provider(bed.channel(fake)), bed.job()
        outcome: SubmitOutcome | PollOutcome = await provider.submit(job)
        if isinstance(outcome, Accepted):
            assert len(outcome.upstream_id.encode()) <= 4096
            outcome = await provider.poll(job, outcome.upstream_id)
        for source in outcome.images if isinstance(outcome, Done) else ():
            with suppress(SourceError):
                await content(source)
    if isinstance(outcome, Done | Failed) and outcome.cost_micro_usdc is not None:
        assert outcome.cost_micro_usdc >= 0
    return outcome


async def assert_outcomes(
    protocol: Protocol, root: Path, answers: Iterable[object], *, status: int
) -> None:
    """A send that is answered so has an outcome, which can be stored."""
    async with opened_bed(protocol, root) as bed, bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        for answer in answers:
            fake.tamper = partial(replace, document=answer, status=status)
            outcome = await provider.submit(bed.job())
            assert isinstance(outcome, OUTCOMES)
            msgspec.json.encode([getattr(outcome, "message", ""), getattr(outcome, "code", "")])
