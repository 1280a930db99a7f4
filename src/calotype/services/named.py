"""The images of a request: those that came with it, and those of ours that it names by id."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from calotype.domain.catalog import Model
from calotype.domain.errors import ReferenceTooLarge, UnsupportedReferenceType
from calotype.domain.files import gone
from calotype.domain.task import Asset, Reference
from calotype.domain.validation import REFERENCE_FIELD
from calotype.services.assets import Kept
from calotype.store.port import Store

Image = Reference | Kept
"""A reference of a request: by URL or id, or an upload that is stored."""
NONE_NAMED: Final[Mapping[int, Asset]] = MappingProxyType({})
"""What ``find_named`` finds for a request without references."""


async def find_named(store: Store, requests: Iterable[Sequence[Image]]) -> Mapping[int, Asset]:
    """The images that the references of requests name by id, those that are stored."""
    ids = {
        one.asset_id
        for references in requests
        for one in references
        if isinstance(one, Reference) and one.asset_id is not None
    }
    return {one.id: one for one in await store.assets(sorted(ids))} if ids else {}


def images_of(
    references: Sequence[Image], named: Mapping[int, Asset], *, account_id: int, now: int
) -> list[Asset | None]:
    """References as far as they are here, in order: None for one that is still to be fetched.

    Args:
        references: of a request.
        named: what ``find_named`` found for it.
        account_id: whose they are to be.
        now: the time.

    Raises:
        errors.InvalidParameter: one names an image that the account does not have, or no longer.

    """
    images: list[Asset | None] = []
    for one in references:
        if isinstance(one, Kept) or one.asset_id is None:
            images.append(one.asset if isinstance(one, Kept) else None)
            continue
        image = named.get(one.asset_id)
        if image is None or image.account_id != account_id:
            raise gone(one.asset_id)
        if image.expires_at is not None and image.expires_at <= now:
            raise gone(one.asset_id)
        images.append(image)
    return images


def check_images(model: Model, references: Sequence[Image], images: Sequence[Asset | None]) -> None:
    """Whether a model takes the images that are here.

    Raises:
        errors.ReferenceTooLarge: one has too many bytes.
        errors.UnsupportedReferenceType: one is of another type.

    """
    limits = model.references
    for one, image in zip(references, images, strict=True):
        if image is None:
            continue
        param = "image" if isinstance(one, Kept) else REFERENCE_FIELD
        if image.bytes > limits.max_bytes:
            raise ReferenceTooLarge(
                f"{model.id} takes reference images of at most {limits.max_bytes} bytes.",
                param=param,
            )
        if image.content_type not in limits.content_types:
            raise UnsupportedReferenceType(
                f"{model.id} takes reference images of these types: "
                f"{', '.join(limits.content_types)}.",
                param=param,
            )
