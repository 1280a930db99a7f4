"""GET /v1/models, /v1/models/{id}, /v1/models/brands/{brand}/image: public and cacheable."""

from starlette.requests import Request
from starlette.responses import Response

from calotype.api.context import Context
from calotype.api.render import Answer, cacheable, json_answer, unless_known
from calotype.domain.errors import BrandNotFound, ModelNotFound, UnknownModel
from calotype.services.discovery import model_entry

_MARK_MAX_AGE = 86_400


class Discovery:
    """Shows the catalog; rendered once, and made anew when the channels change."""

    def __init__(self, context: Context) -> None:
        self._catalog = context.catalog
        entries = {
            model.id: model_entry(model, context.router.serving(model.id))
            for model in context.catalog.models.values()
        }
        self._entries = {
            name: cacheable(json_answer(200, entry)) for name, entry in entries.items()
        }
        every = {"object": "list", "data": list(entries.values())}
        self._list = cacheable(json_answer(200, every))

    async def models(self, request: Request) -> Response:
        """Every model."""
        return unless_known(request, self._list)

    async def model(self, request: Request) -> Response:
        """One model."""
        name = request.path_params["model_id"]
        if name not in self._entries:
            try:
                self._catalog.get(name)
            except UnknownModel as error:
                raise ModelNotFound(error.message) from None
        return unless_known(request, self._entries[name])

    async def brand(self, request: Request) -> Response:
        """A brand's mark."""
        name = request.path_params["brand"]
        mark = self._catalog.marks.get(name)
        if mark is None:
            brands = sorted(self._catalog.marks)
            raise BrandNotFound(f"There is no such brand; there are {', '.join(brands)}.")
        headers = (
            (b"content-type", b"image/svg+xml"),
            (
                b"content-security-policy",
                b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox",
            ),
        )
        return unless_known(request, cacheable(Answer(200, mark, headers), max_age=_MARK_MAX_AGE))
