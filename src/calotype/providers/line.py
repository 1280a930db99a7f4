"""A channel's line to its upstream: base URL, credential, verdicts; what every protocol shares.

``create`` sends once, over a connection that its server surely holds (``client.KEPT_SECONDS``).
``ask`` is for everything that may be repeated. Both return an outcome instead of an ``Answer``
where there is nothing to look at.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import msgspec

from calotype.domain.catalog import Model
from calotype.domain.channel import Channel
from calotype.domain.clock import Clock
from calotype.domain.outcomes import (
    Failed,
    Fault,
    ImageSource,
    Refused,
    TryLater,
    Unknown,
)
from calotype.domain.urls import endpoint_of
from calotype.domain.wire import Upstream
from calotype.net.bodies import Body, json_body
from calotype.net.client import (
    Answer,
    BodyBroken,
    BrokenOff,
    NotKept,
    NotSent,
    TooLarge,
    UpstreamClient,
)
from calotype.providers.scrubbing import scrubbed
from calotype.providers.verdicts import on_create, on_read, verdict

ASK_SECONDS: Final = 30.0
"""Longest wait for an answer about a job."""
ANSWER_BYTES: Final = 1024 * 1024
"""Of an answer about a job that holds no image."""
IMAGES_BYTES: Final = 512 * 1024 * 1024
"""Of an answer that holds images."""
_UNREADABLE: Final = TryLater(
    "internal_error", "A reference image could not be read here.", fault=Fault.OURS
)
_SAID: Final = 300
_WORD: Final = 40


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider works with, besides its channel and its file of data.

    Args:
        client: the one HTTP client of the process.
        clock: the time.
        models: the catalog's, by their ids.
        data_dir: of this process, for what a provider keeps.
        sandbox_seconds, sandbox_processes: for the built-in channel.

    """

    client: UpstreamClient
    clock: Clock
    models: Mapping[str, Model] = {}
    data_dir: Path | None = None
    sandbox_seconds: float = 0.0
    sandbox_processes: int = 1


class Line:
    """One channel's line.

    Args:
        channel: whose it is.
        upstream: the provider's file of data.
        client: speaks HTTP.
        headers: sent with every call to ``base_url`` and nowhere else: the credential is in them.

    """

    def __init__(
        self,
        channel: Channel,
        upstream: Upstream,
        client: UpstreamClient,
        *,
        headers: Mapping[str, str],
    ) -> None:
        self.channel = channel
        self.upstream = upstream
        self.client = client
        self.base_url = (channel.base_url or upstream.base_url).rstrip("/")
        self._headers = dict(headers)

    async def create(
        self,
        path: str,
        *,
        body: Body | dict[str, Any] | list[Any],
        headers: Mapping[str, str] | None = None,
        max_bytes: int = IMAGES_BYTES,
        on_event: Callable[[Any], bool] | None = None,
    ) -> Answer | TryLater | Unknown:
        """Send a job, once; every answer of the upstream comes back, whatever its status.

        ``on_event`` sees each event of an answer that is a stream of them; the one for which it
        returns True is the answer's document.
        """
        sent = body if isinstance(body, Body) else json_body(body)
        try:
            return await self.client.call(
                "POST",
                self.url(path),
                headers=self._headers | dict(headers or {}),
                body=sent,
                fresh=True,
                timeout_seconds=self.channel.timeout_seconds,
                max_bytes=max_bytes,
                on_event=on_event,
            )
        except NotSent as error:
            return TryLater("upstream_unavailable", str(error), fault=Fault.UNREACHABLE)
        except BodyBroken:
            return _UNREADABLE
        except NotKept as error:
            return Unknown(str(error), fault=Fault.OURS)
        except BrokenOff as error:
            return Unknown(str(error))
        except TooLarge as error:
            return Unknown(str(error))

    async def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: Body | dict[str, Any] | list[Any] | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = ANSWER_BYTES,
        timeout_seconds: float = ASK_SECONDS,
    ) -> Answer | TryLater:
        """Ask something that may be asked again; ``path`` may be a URL that the upstream gave.

        A URL of another host than the channel's is not asked: the credential goes with it.
        """
        url = self.url(path)
        if not self.owns(url):
            message = "The upstream sent us to a host that is not its own."
            return TryLater("upstream_malformed_response", message, fault=Fault.UPSTREAM)
        sent = body if body is None or isinstance(body, Body) else json_body(body)
        try:
            return await self.client.call(
                method,
                url,
                headers=self._headers | dict(headers or {}),
                body=sent,
                fresh=False,
                timeout_seconds=timeout_seconds,
                max_bytes=max_bytes,
            )
        except BodyBroken:
            return _UNREADABLE
        except NotKept as error:
            return TryLater("internal_error", str(error), fault=Fault.OURS)
        except (NotSent, BrokenOff, TooLarge) as error:
            return TryLater("upstream_unavailable", str(error), fault=Fault.UNREACHABLE)

    def refuse(
        self, answer: Answer, *, code: str = "", detail: str = ""
    ) -> Refused | TryLater | Failed | Unknown:
        """The outcome of a send that was answered without a job, by the table ``create``."""
        word = verdict(self.upstream.create, answer.status, code)
        return on_create(word, detail=self.said(answer, detail), retry_after=answer.retry_after)

    def unread(
        self, answer: Answer, *, code: str = "", detail: str = ""
    ) -> TryLater | Failed | Unknown:
        """The outcome of a question that was answered without a job, by the table ``read``.

        Never of a send, as little as ``verdicts.on_read``.
        """
        word = verdict(self.upstream.read, answer.status, code)
        return on_read(word, detail=self.said(answer, detail), retry_after=answer.retry_after)

    def beforehand(
        self,
        answer: Answer,
        *,
        code: str = "",
        detail: str = "",
        what: str = "The upstream said",
        fault: Fault = Fault.BUSY,
    ) -> Refused | TryLater:
        """The outcome of a call before the send that was answered with a fault.

        It is as that of the send itself, by the table ``create``, but that nothing can have been
        bought: what the table does not know is tried again, told by ``what`` and ``fault``.
        """
        outcome = self.refuse(answer, code=code, detail=detail)
        if isinstance(outcome, Refused | TryLater):
            return outcome
        message = f"{what}: {self.said(answer, detail)}"
        return TryLater("upstream_unavailable", message, answer.retry_after, fault)

    def result(self, url: object) -> ImageSource:
        """A finished image by its URL, fetched without our credential when it is read."""
        return self.client.result(str(url), own_host=endpoint_of(self.base_url))

    def own_result(self, path: str) -> ImageSource:
        """A finished image at the upstream itself, fetched with the credential."""
        return self.client.own_result(self.url(path), headers=self._headers)

    def url(self, path: str) -> str:
        """Where a path is; a whole URL stays as it is."""
        if "://" in path:
            return path
        return f"{self.base_url}/{path.lstrip('/')}" if path else self.base_url

    def owns(self, url: str) -> bool:
        """Whether a URL is on the channel's own scheme, host and port."""
        try:
            return _origin(url) == _origin(self.base_url)
        except ValueError:
            return False

    def joined(self, url: str) -> str:
        """A URL that may be relative to the channel's host."""
        return urljoin(f"{self.base_url}/", url)

    def said(self, answer: Answer, detail: str = "") -> str:
        """What the upstream said: short, printable, with nothing of ours or of its inside in it."""
        text = scrubbed(detail or answer.text or "", self._secrets())[:_SAID]
        return f"HTTP {answer.status}{': ' + text if text else ''}"

    def strange(self, state: str) -> str:
        """The upstream's word for a state, where the table ``states`` does not have it."""
        if state in self.upstream.states:
            return ""
        return scrubbed(state, self._secrets())[:_WORD]

    def _secrets(self) -> set[str]:
        """What goes out to prove who we are, in each form in which it could come back."""
        keys = (self.channel.api_key, self.channel.callback_secret)
        secrets = {key.value for key in keys if key is not None}
        for value in self._headers.values():
            secrets |= {value, value.partition(" ")[2]}
        return secrets


def bearer(channel: Channel) -> dict[str, str]:
    """The credential as most upstreams take it; nothing where there is none."""
    return {"Authorization": f"Bearer {channel.api_key.value}"} if channel.api_key else {}


def is_success(answer: Answer) -> bool:
    """Whether HTTP calls it a success."""
    return 200 <= answer.status < 300  # noqa: PLR2004 -- its own classes


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return parts.scheme, parts.hostname or "", port
