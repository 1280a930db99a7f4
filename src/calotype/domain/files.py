"""Images of ours as references: ``asset://asset_…`` in the place of a URL."""

from typing import Final

from calotype.domain.errors import InvalidParameter
from calotype.domain.ids import decode, encode, word_pattern

SCHEME: Final = "asset://"
PATTERN: Final = f"^[Aa][Ss][Ss][Ee][Tt]://{word_pattern('asset').removeprefix('^')}"
"""What a reference by id looks like, as a pattern of JSON Schema."""


def reference_of(asset_id: int) -> str:
    """How an image is named as a reference."""
    return SCHEME + encode("asset", asset_id)


def named_asset(url: object, *, param: str = "image_input") -> int | None:
    """The id of the image that a reference names; None for what is no ``asset://``.

    Raises:
        errors.InvalidParameter: it begins so, and names no image.

    """
    if not isinstance(url, str) or url[: len(SCHEME)].lower() != SCHEME:
        return None
    asset_id = decode("asset", url[len(SCHEME) :])
    if asset_id is None:
        raise InvalidParameter(
            "This asset:// names no image; write asset:// and the id of a file of POST /v1/files, "
            f"or of an image of a task: {reference_of(0)}.",
            param=param,
        )
    return asset_id


def gone(asset_id: int, *, param: str = "image_input") -> InvalidParameter:
    """The refusal of an image that is not there, or belongs to someone else."""
    return InvalidParameter(
        f"{reference_of(asset_id)} is no image of this account, or none any more: it was deleted "
        "or has expired. Upload it again by POST /v1/files, and name the id that you get.",
        param=param,
    )
