"""The surface at ``/openai/v1`` that OpenAI's own clients speak to; each request is a task.

``docs/decisions/0013-openai-surface.md`` tells why it answers as it does.
"""

from collections.abc import Sequence

from starlette.routing import Route

from calotype.api.context import Context
from calotype.api.intake import Intake
from calotype.api.openai.images import Images
from calotype.api.openai.models import Models
from calotype.api.openai.retries import Tries


def routes(context: Context, intake: Intake) -> Sequence[Route]:
    """The routes of the surface."""
    models, tries = Models(context), Tries(context.store)
    return [
        Route(
            "/openai/v1/images/generations",
            Images(context, intake, tries, kind="image_generation"),
            methods=["POST"],
        ),
        Route(
            "/openai/v1/images/edits",
            Images(context, intake, tries, kind="image_edit"),
            methods=["POST"],
        ),
        Route("/openai/v1/models", models.every),
        Route("/openai/v1/models/{model_id:path}", models.one),
    ]
