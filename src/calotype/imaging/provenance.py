"""What may be said of where an image comes from."""

import msgspec


class Origin(msgspec.Struct, frozen=True):
    """Where an image comes from, as far as anyone who has it may know."""

    task: str
    """The task's id, as clients know it."""
    model: str | None
    """The name of the trained model that made it; None: a plain algorithm did."""
