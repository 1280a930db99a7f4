"""What signing is told and tells; signing itself brings a library that takes time and memory."""

import msgspec


class Unfit(Exception):
    """Certificate and key cannot sign; ``subject`` is which, the message names the cure."""

    def __init__(self, subject: str, message: str) -> None:
        super().__init__(message)
        self.subject = subject


class Signature(msgspec.Struct, frozen=True):
    """With what images are signed."""

    certificate: str
    """Path of the chain in PEM, the signer's own first."""
    key: str
    """Path of its private key in PEM."""


class Sign(msgspec.Struct, frozen=True, tag=True):
    """Write an image with a manifest."""

    source: str
    target: str
    content_type: str
    signature: Signature
    model: str | None
    """The name of the trained model that made it; None: a plain algorithm did."""
