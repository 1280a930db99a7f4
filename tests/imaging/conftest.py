"""What tests of work on images have in common."""

from collections.abc import AsyncIterator

import pytest

from calotype.imaging.conversion import Converter


@pytest.fixture
async def converter() -> AsyncIterator[Converter]:
    made = Converter(1)
    yield made
    await made.close()
