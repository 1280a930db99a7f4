"""Seedream at its maker: BytePlus ModelArk and Volcengine Ark."""

from calotype.domain.channel import Channel
from calotype.domain.wire import Upstream
from calotype.net.bodies import Body, json_body
from calotype.providers.images_api import GENERATIONS, ImagesApi
from calotype.providers.inline import located
from calotype.providers.kind import Kind
from calotype.providers.line import Tools, bearer
from calotype.providers.port import Job


class Seedream(ImagesApi):
    """Speaks it to one channel."""

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        super().__init__(channel, upstream, tools, headers=bearer(channel))

    def _path(self, job: Job) -> str:  # noqa: ARG002 -- the family's
        """Edits go where generations go."""
        return GENERATIONS

    def _body(self, job: Job) -> Body:
        document = self._document(job)
        images = [located(image) for image in job.references]
        if images:
            document["image"] = images if len(images) > 1 else images[0]
        return json_body(document)


KIND = Kind(make=Seedream)
