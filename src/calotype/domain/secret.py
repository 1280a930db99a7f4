"""Text that must not be shown."""

import msgspec


class Secret(msgspec.Struct, frozen=True):
    """Text that shows itself to nobody who does not ask."""

    value: str

    def __repr__(self) -> str:
        return "Secret('…')"

    __str__ = __repr__
