"""Which of the models an API key may use."""

from calotype.domain.catalog import Catalog
from calotype.domain.errors import ModelNotAllowed
from calotype.domain.keys import ApiKey


def check_model(key: ApiKey, catalog: Catalog, name: object) -> None:
    """Whether a key may use what a request calls its model; what is no model is not judged here.

    Raises:
        errors.ModelNotAllowed: it may not.

    """
    if key.models is None or name in key.models or not isinstance(name, str):
        return
    model = catalog.models.get(name)
    if model is None or not model.enabled:
        return
    raise ModelNotAllowed(
        f"This API key may not use {name}; it may use {', '.join(key.models)}.", param="model"
    )
