"""Azure OpenAI as its documentation has it: OpenAI's images under other URLs and another header."""

from collections.abc import Mapping
from typing import ClassVar, Final

from providers.fakes.base import KEY, WAIT, Route, Understood
from providers.fakes.exchange import Call, Reply
from providers.fakes.images_api import Fields, problem
from providers.fakes.openai import OpenAI
from providers.scripts import Script

CONTENT_FILTER: Final = "filtered, older code"
INNER: Final = "filtered, told by the inner error"


class AzureOpenAI(OpenAI):
    """NAME.openai.azure.com."""

    prefix: ClassVar[str] = ""
    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/openai/v1/images/generations", "create"),
        ("POST", "/openai/v1/images/edits", "create"),
        ("POST", "/openai/deployments/{deployment}/images/generations", "create"),
        ("POST", "/openai/deployments/{deployment}/images/edits", "create"),
    )
    refusals: ClassVar[Mapping[str, Reply]] = {
        **OpenAI.refusals,
        Script.BUSY: problem(
            429, "429", "Exceeded the rate limit.", headers={"Retry-After": f"{WAIT:g}"}
        ),
        Script.BAD_KEY: problem(401, "401", "Access denied due to invalid subscription key."),
        Script.MODEL_GONE: problem(404, "DeploymentNotFound", "The deployment does not exist."),
        Script.MODERATED: problem(
            400, "content_policy_violation", "Rejected by our safety system."
        ),
        CONTENT_FILTER: problem(400, "contentFilter", "Your task failed by our safety system."),
        INNER: Reply(
            400,
            {
                "error": {
                    "code": "BadRequest",
                    "message": "The response was filtered.",
                    "inner_error": {"code": "ResponsibleAIPolicyViolation"},
                }
            },
        ),
    }

    def authorised(self, call: Call) -> bool:
        return call.headers.get("api-key") == KEY and "authorization" not in call.headers

    def understand(self, call: Call) -> Understood:
        read = super().understand(call)
        versions = [value for name, value in call.query if name == "api-version"]
        if deployment := call.params.get("deployment"):
            assert len(versions) == 1
            assert read.model in {"", deployment}
            return Understood(deployment, read.prompt, read.fields, read.references)
        assert not versions
        return read

    def judge(self, fields: Fields, *, edits: bool) -> None:
        super().judge(fields, edits=edits)
        assert fields.get("output_format", "png") in {"png", "jpeg"}
