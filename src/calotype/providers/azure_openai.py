"""OpenAI's Images API on Azure: the channel's base URL is the resource, a model is a deployment."""

from typing import Final
from urllib.parse import quote

from calotype.domain.channel import Channel
from calotype.domain.wire import Upstream
from calotype.providers.kind import Kind
from calotype.providers.line import Tools
from calotype.providers.openai import OPTIONS, OpenAI
from calotype.providers.port import Job

API_VERSION: Final = "api_version"


class AzureOpenAI(OpenAI):
    """Speaks it to one channel.

    With the option ``api_version`` the deployment stands in the path (the classic form), without
    it in the body alone (the v1 form).

    Raises:
        ValueError: the base URL is more than the resource, or an option has a value there is not.

    """

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        if channel.base_url.rstrip("/").endswith(("/openai", "/openai/v1")):
            raise ValueError(
                f"base_url: '{channel.base_url}' is more than the resource; write it alone, such "
                "as https://NAME.openai.azure.com"
            )
        key = channel.api_key.value if channel.api_key else ""
        super().__init__(channel, upstream, tools, headers={"api-key": key})
        self._api_version = channel.options.get(API_VERSION, "")

    def _path(self, job: Job) -> str:
        path = super()._path(job)
        if not self._api_version:
            return f"openai/v1/{path}"
        deployment = quote(job.upstream_model, safe="")
        version = quote(self._api_version, safe="")
        return f"openai/deployments/{deployment}/{path}?api-version={version}"


KIND = Kind(
    make=AzureOpenAI,
    options={
        **OPTIONS,
        API_VERSION: "such as 2025-04-01-preview: takes the classic URL; left out, the v1 URL",
    },
)
