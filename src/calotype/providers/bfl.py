"""Black Forest Labs: send, then ask at the URL that the answer names, in the job's own region.

An accepted job is ``<id> <cost> <polling_url>``: micro-USD, and ``-`` for what is unknown.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.outcomes import (
    Accepted,
    Done,
    PollOutcome,
    Running,
    SubmitOutcome,
    Unknown,
)
from calotype.domain.wire import Upstream
from calotype.net.bodies import Inline
from calotype.net.client import Answer
from calotype.providers.kind import Kind
from calotype.providers.line import ANSWER_BYTES, Line, Tools, is_success
from calotype.providers.plain import Plain
from calotype.providers.port import Job
from calotype.providers.reading import counted, decoded, fields, objects, rounded, string, text
from calotype.providers.verdicts import ended, imageless, on_read, unreadable, verdict

MOST_CREDITS: Final = 1_000_000
_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,200}")
_NAME: Final = r"[A-Za-z0-9-]{1,63}"
_URL: Final = re.compile(rf"https?://{_NAME}(\.{_NAME})*(:[0-9]{{1,5}})?/[!-\[\]-~]{{0,2000}}")
_NOT_KNOWN: Final = "-"


class _Accepted(msgspec.Struct, frozen=True):
    """What is kept of a job."""

    name: str
    cost: int | None = None
    url: str | None = None

    def __str__(self) -> str:
        cost = _NOT_KNOWN if self.cost is None else str(self.cost)
        return f"{self.name} {cost} {self.url or _NOT_KNOWN}"

    @classmethod
    def read(cls, upstream_id: str) -> "_Accepted":
        name, cost, url, *_ = [*upstream_id.split(" "), _NOT_KNOWN, _NOT_KNOWN]
        return cls(
            name, int(cost) if cost.isdecimal() else None, None if url == _NOT_KNOWN else url
        )


class Bfl(Plain):
    """Speaks to one channel."""

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        self._headers = {"x-key": channel.api_key.value if channel.api_key else ""}
        self._line = Line(channel, upstream, tools.client, headers=self._headers)
        self._protocol = upstream.protocol
        self._secret = channel.callback_secret
        self._host = urlsplit(self._line.base_url).hostname or ""

    async def submit(self, job: Job) -> SubmitOutcome:
        """Send the job to the model's own endpoint."""
        document = dict(job.fields) | {"prompt": job.request.prompt}
        for number, reference in enumerate(job.references, start=1):
            name = "input_image" if number == 1 else f"input_image_{number}"
            document[name] = reference.url or Inline(reference.open, reference.size)
        if job.callback_url is not None and self._secret is not None and self._tells_webhooks():
            document["webhook_url"] = job.callback_url
            document["webhook_secret"] = self._secret.value
        answer = await self._line.create(
            f"v1/{job.upstream_model}", body=document, max_bytes=ANSWER_BYTES
        )
        if not isinstance(answer, Answer):
            return answer
        if not is_success(answer):
            return self._line.refuse(answer, detail=_detail(answer.document))
        said = fields(answer.document)
        name = text(said, "id")
        if not _ID.fullmatch(name):
            return Unknown("The upstream took the request and gave the job no name.")
        url = text(said, "polling_url")
        accepted = _Accepted(
            name, self._cost(said.get("cost")), url if self._is_theirs(url) else None
        )
        return Accepted(str(accepted), poll_after=self._pause)

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """Ask where the answer to the send said; a URL of a foreign host is never asked."""
        del job
        accepted = _Accepted.read(upstream_id)
        named = accepted.url is not None and self._is_theirs(accepted.url)
        if named and accepted.url is not None:
            answer = await self._line_to(accepted.url).ask(accepted.url)
        else:
            answer = await self._line.ask(f"v1/get_result?id={accepted.name}")
        if not isinstance(answer, Answer):
            return answer
        document = answer.document
        if is_success(answer) and not isinstance(document, dict):
            return unreadable()
        said = fields(document)
        state = text(said, "status")
        if state in self._protocol["lost_states"]:
            word: str | None = "lost"
        elif not is_success(answer):
            word = verdict(self._line.upstream.read, answer.status)
        else:
            return self._told(accepted, answer, said, state)
        if word == "lost" and not named:
            word = "again"  # another region may have it: only the URL that the job has would tell
        detail = self._line.said(answer, state or _detail(document))
        return on_read(word, detail=detail, retry_after=answer.retry_after)

    def callback(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """The job that a callback signed with our secret tells of."""
        if self._secret is None:
            return None
        proof = hmac.new(self._secret.value.encode(), body, hashlib.sha256).hexdigest()
        given = headers.get("x-bfl-signature", "").lower()
        if not hmac.compare_digest(given.encode(), f"sha256={proof}".encode()):
            return None
        document = decoded(body)
        # Unverified: which of the two it is.
        name = text(document, "task_id") or text(document, "id")
        return name if _ID.fullmatch(name) else None

    @property
    def _pause(self) -> float:
        return float(self._protocol["poll_seconds"])

    def _told(
        self, accepted: _Accepted, answer: Answer, said: Mapping[str, object], state: str
    ) -> PollOutcome:
        """What a state says."""
        word = self._line.upstream.states.get(state)
        if word == "done":
            sample = text(said.get("result"), "sample")
            return Done((self._line.result(sample),), accepted.cost) if sample else imageless()
        if word in {"failed", "policy", "cancelled"}:
            return ended(word, detail=self._line.said(answer, state))
        return Running(
            _percent(said.get("progress")),
            queued=word == "queued",
            state=self._line.strange(state),
            poll_after=self._pause,
        )

    def _tells_webhooks(self) -> bool:
        return self._host not in self._protocol["hosts_without_webhooks"]

    def _is_theirs(self, url: str) -> bool:
        """Whether the key may go there: the channel's own host, or another of BFL's."""
        if not _URL.fullmatch(url):
            return False
        if self._line.owns(url):
            return True
        suffix = f".{self._protocol['domain']}"
        hosts = (urlsplit(url).hostname or "", self._host)
        return url.startswith("https://") and all(f".{host}".endswith(suffix) for host in hosts)

    def _line_to(self, url: str) -> Line:
        """The line to the region that a URL is in."""
        parts = urlsplit(url)
        region = msgspec.structs.replace(
            self._line.channel, base_url=f"{parts.scheme}://{parts.netloc}"
        )
        return Line(region, self._line.upstream, self._line.client, headers=self._headers)

    def _cost(self, credits_: object) -> int | None:
        """Micro-USD of what was charged in credits, rounded half up."""
        spent = counted(credits_, most=MOST_CREDITS)
        return None if spent is None else rounded(spent * self._protocol["credit_micro_usdc"])


def _detail(document: object) -> str:
    """What an error says to people: ``detail`` is a text, or a list of findings."""
    detail = fields(document).get("detail")
    return string(detail) or "; ".join(text(each, "msg") for each in objects(detail))


def _percent(progress: object) -> int | None:
    """A fraction as percent. Unverified: BFL names no range and hardly ever fills it."""
    if isinstance(progress, bool) or not isinstance(progress, int | float):
        return None
    return int(progress * 100) if 0 <= progress <= 1 else None


KIND: Final = Kind(make=Bfl)
