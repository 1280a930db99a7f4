"""A check that many ask for in one moment is made once."""

import asyncio

import pytest

from calotype.domain.errors import Unavailable
from calotype.services.sending import Together


class Check:
    """Counts how often it is made; holds until let go."""

    def __init__(self) -> None:
        self.made = 0
        self.go_on = asyncio.Event()
        self.fault: Exception | None = None

    async def __call__(self) -> None:
        self.made += 1
        await self.go_on.wait()
        if self.fault is not None:
            raise self.fault


async def test_those_who_ask_while_it_is_made_share_it_and_the_next_one_makes_it_anew() -> None:
    check = Check()
    check.go_on.set()
    together = Together(check)
    await asyncio.gather(together(), together(), together())
    assert check.made == 1
    await together()
    assert check.made == 2


async def test_that_all_is_well_is_believed_for_a_while_and_that_it_is_not_is_never() -> None:
    check = Check()
    check.go_on.set()
    check.fault = Unavailable("The disk is full.")
    together = Together(check, seconds=3600)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await together()
    check.fault = None
    for _ in range(2):
        await together()
    assert check.made == 3


async def test_what_is_wrong_is_told_to_all_and_nobody_keeps_it() -> None:
    check = Check()
    check.go_on.set()
    check.fault = Unavailable("The disk is full.")
    together = Together(check)
    asking = [asyncio.create_task(together()) for _ in range(2)]
    await asyncio.wait(asking)
    assert [each.exception() for each in asking] == [check.fault, check.fault]
    check.fault = None
    await together()


async def test_one_who_gives_up_takes_it_from_nobody() -> None:
    check = Check()
    together = Together(check)
    first, second = asyncio.create_task(together()), asyncio.create_task(together())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    check.go_on.set()
    await second
    assert check.made == 1
