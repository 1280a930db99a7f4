"""A fake upstream: a real HTTP server on loopback that plays scripts and remembers every call.

A protocol's fake is written from the facts about the upstream, never from our adapter: it says
which routes there are (``routes``), what it reads in a send (``understand``), how it accepts one
(``accepted``), how it tells of a job (``told``), and how its refusals look (``refusals``).
Everything else, cut connections among it, is here. It answers on two ports: one is the upstream
itself (``url``), the other another host (``elsewhere``), where results lie and where no
credential may ever arrive.
"""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from aiohttp import web

from harness import picture
from providers.fakes.exchange import Call, Cut, Reply, bound, pattern
from providers.scripts import Script

KEY: Final = "the-key-of-the-tests"
CALLBACK_SECRET: Final = "whsec_dGhlIHNlY3JldCBvZiB0aGUgdGVzdHM="
"""In the form that Standard Webhooks want; elsewhere any text will do."""
PRIVATE: Final = "http://169.254.169.254/latest/meta-data/"
SIZE: Final = (64, 48)
"""Width and height of every image that a fake makes."""
WAIT: Final = 7.0
"""Seconds that a busy fake asks for."""
_TERABYTE: Final = 10**12


class Phase(StrEnum):
    """What a question about a job finds."""

    QUEUED = "queued"
    RUNNING = "running"
    STRANGE = "strange"
    """A state that the documentation does not name."""
    DONE = "done"
    FAILED = "failed"
    MODERATED = "moderated"
    CANCELLED = "cancelled"


COURSES: Final[Mapping[str, tuple[Phase, ...]]] = {
    Script.DELAY: (Phase.QUEUED, Phase.QUEUED, Phase.RUNNING, Phase.RUNNING, Phase.DONE),
    Script.UNKNOWN_STATE: (Phase.STRANGE, Phase.STRANGE, Phase.DONE),
    Script.FAILED: (Phase.RUNNING, Phase.FAILED),
    Script.MODERATED: (Phase.RUNNING, Phase.MODERATED),
    Script.CANCELLED: (Phase.QUEUED, Phase.CANCELLED),
}
"""What one question after the other finds; the last one is what all later ones find."""
USUAL: Final = (Phase.RUNNING, Phase.DONE)

READ_FAULTS: Final[Mapping[str, Reply]] = {
    Script.READ_500: Reply(500, {"error": "something broke"}),
    Script.READ_BUSY: Reply(429, {"error": "slow down"}, headers={"Retry-After": f"{WAIT:g}"}),
    Script.READ_CUT: Reply(cut=Cut.WITHIN, body=b'{"state": "running"}'),
    Script.READ_MALFORMED: Reply(body=b'{"state": "runn'),
}
"""How the first question about a job is answered."""

REFUSALS: Final[Mapping[str, Reply]] = {
    Script.ERROR_500: Reply(500, {"error": "something broke"}, bought=True),
    Script.ERROR_503: Reply(503, {"error": "something broke"}, bought=True),
    Script.MALFORMED: Reply(body=b'{"id": "job-1", "sta', bought=True),
    Script.ERROR_IN_200: Reply(200, {"error": {"message": "something broke"}}, bought=True),
}
"""How a send is answered that brings no job; a protocol adds its own, and its own shapes."""

CUTS: Final[Mapping[str, Cut]] = {
    Script.CUT_BEFORE: Cut.BEFORE,
    Script.CUT_WITHIN: Cut.WITHIN,
    Script.CUT_AFTER: Cut.AFTER,
    Script.SILENT: Cut.NEVER_ANSWERED,
}


@dataclass
class Order:
    """One send that the upstream took, or may have taken."""

    id: str
    script: str
    call: Call
    reads: int = 0
    downloads: int = 0
    cancelled: bool = False

    @property
    def first_read(self) -> bool:
        return self.reads == 1


@dataclass(frozen=True)
class Understood:
    """What the upstream reads in a send: its model, prompt, references in order, and the rest."""

    model: str
    prompt: str
    fields: Mapping[str, Any]
    references: tuple[bytes, ...] = ()


Route = tuple[str, str, str]
"""HTTP method, path with ``{name}`` for one step, and the method of the fake that answers it."""


@dataclass
class Fake:
    """One upstream.

    Args:
        plan: the script of each send; sends beyond it are accepted.

    """

    plan: Sequence[str] = ()
    calls: list[Call] = field(default_factory=list)
    """Every call, to both hosts, in order."""
    orders: dict[str, Order] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """What lies behind a URL: uploads, and our own public references."""
    tamper: Callable[[Reply], Reply] = lambda reply: reply
    """Changes every answer of the upstream."""
    url: str = ""
    elsewhere: str = ""
    sends: int = 0
    faults: list[BaseException] = field(default_factory=list)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _sites: list[web.SockSite] = field(default_factory=list)

    routes: ClassVar[tuple[Route, ...]] = ()
    refusals: ClassVar[Mapping[str, Reply]] = REFUSALS
    read_faults: ClassVar[Mapping[str, Reply]] = READ_FAULTS
    courses: ClassVar[Mapping[str, tuple[Phase, ...]]] = COURSES
    prefix: ClassVar[str] = ""
    """Path that the channel's base URL ends with."""

    # What a protocol says

    def authorised(self, call: Call) -> bool:
        """Whether a call carries the credential as this upstream wants it."""
        return call.headers.get("authorization") == f"Bearer {KEY}"

    def understand(self, call: Call) -> Understood:
        """What the upstream reads in a send."""
        raise NotImplementedError

    def accepted(self, order: Order) -> Reply:
        """The answer to a send that was taken: the job's id, or the image at once."""
        raise NotImplementedError

    def told(self, order: Order, phase: Phase) -> Reply:
        """The answer to a question about a job."""
        raise NotImplementedError

    def unknown_job(self) -> Reply:
        """The answer to a question about a job that is not there."""
        return Reply(404, {"error": "no such job"})

    def unauthorised(self) -> Reply:
        """The answer to a call without the credential."""
        return self.refusals[Script.BAD_KEY]

    def id_of(self, call: Call) -> str:
        """The job that a question is about."""
        return call.params["id"]

    def delivery(self, order: Order, *, at: int) -> tuple[dict[str, str], bytes]:
        """Headers (names in lower case) and body of the callback; ``at`` is ms since 1970."""
        raise NotImplementedError

    # What routes lead to

    def create(self, call: Call) -> Reply:
        """Take a send, or do with it what its script says."""
        script = self.next_script
        self.sends += 1
        refusal = self.refusals.get(script)
        if script == Script.REDIRECTED:
            refusal = self._redirect(call)
        if refusal is not None and not refusal.bought:
            return refusal
        order = Order(self.new_id(call), script, call)
        self.orders[order.id] = order
        answer = refusal or self.accepted(order)
        return replace(answer, cut=CUTS[script]) if script in CUTS else answer

    def read(self, call: Call) -> Reply:
        """Tell of a job what its script says."""
        order = self.orders.get(self.id_of(call))
        if order is None or order.script == Script.LOST:
            return self.unknown_job()
        order.reads += 1
        if order.first_read and order.script == Script.READ_REDIRECTED:
            return self._redirect(call)
        if order.first_read and order.script in self.read_faults:
            return self.read_faults[order.script]
        return self.told(order, self.phase(order))

    def phase(self, order: Order) -> Phase:
        """Where a job is at this question."""
        if order.cancelled:
            return Phase.CANCELLED
        course = self.courses.get(order.script, USUAL)
        return course[min(order.reads, len(course)) - 1]

    # What protocols build answers from

    def new_id(self, call: Call) -> str:  # noqa: ARG002 -- upstreams that take our id find it there
        """The id of a new job."""
        return f"job-{len(self.orders) + 1}"

    def image_url(self, order: Order, index: int = 0) -> str:
        """Where an image lies."""
        if order.script == Script.RESULT_PRIVATE:
            return PRIVATE
        return f"{self.elsewhere}/results/{order.id}/{index}.png"

    def image_base64(self, order: Order, index: int = 0) -> str:
        """An image as base64."""
        text = base64.b64encode(image(index)).decode()
        return text[: len(text) // 2 | 1] if order.script == Script.BASE64_CUT else text

    def keep(self, data: bytes, url: str) -> str:
        """Put an upload where it can be fetched, and return its URL."""
        self.files[url] = data
        return url

    def fetched(self, value: str) -> bytes:
        """What a reference holds: a URL that was uploaded to, a data URL, or base64."""
        if value in self.files:
            return self.files[value]
        if "://" in value:
            raise AssertionError(f"the upstream cannot fetch {value}")
        return base64.b64decode(value.partition(";base64,")[2] or value, validate=True)

    # What tests ask

    @property
    def next_script(self) -> str:
        """What the next send will meet."""
        return self.plan[self.sends] if self.sends < len(self.plan) else Script.ACCEPT

    @property
    def purchases(self) -> int:
        """How many sends the upstream took, or may have taken."""
        return len(self.orders)

    @property
    def base_url(self) -> str:
        """For the channel."""
        return self.url + self.prefix

    @property
    def bought(self) -> list[Order]:
        """Every send that was taken."""
        return list(self.orders.values())

    def calls_to(self, method: str, path: str) -> list[Call]:
        """The calls to the upstream of this method whose path ends so."""
        return [
            call
            for call in self.calls
            if call.to_upstream and call.method == method and call.path.endswith(path)
        ]

    def assert_sound(self) -> None:
        """Nothing was asked that the upstream does not have, and no secret went elsewhere."""
        self.assert_discreet()
        for call in self.calls:
            if call.to_upstream:
                assert self._route(call) is not None, f"no such route: {call.method} {call.path}"
                assert self.authorised(call), f"no credential: {call.method} {call.path}"
            else:
                assert call.path.startswith("/results/"), f"led elsewhere: {call.path}"

    def assert_discreet(self) -> None:
        """No secret went to the other host, and the fake itself did not break."""
        if self.faults:
            raise self.faults[0]
        for call in self.calls:
            assert "/../" not in f"{call.path}/", f"an id became a path: {call.path}"
            if not call.to_upstream:
                for secret in (KEY, CALLBACK_SECRET):
                    assert secret.encode() not in call.everything, "a secret went elsewhere"
                assert not {"authorization", "cookie"} & call.headers.keys()

    # The server

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Fake"]:
        """Serve; while the plan begins with ``UNREACHABLE``, nobody listens."""
        runners = [
            web.ServerRunner(web.Server(serve), shutdown_timeout=1)
            for serve in (self._serve_upstream, self._serve_elsewhere)
        ]
        sockets = [bound(), bound()]
        for runner, sock in zip(runners, sockets, strict=True):
            await runner.setup()
            self._sites.append(web.SockSite(runner, sock))
        self.url, self.elsewhere = (f"http://127.0.0.1:{s.getsockname()[1]}" for s in sockets)
        try:
            await self._sites[1].start()
            await self.open_when_due()
            yield self
        finally:
            self._over.set()
            for runner in runners:
                await runner.cleanup()
            for sock in sockets:
                sock.close()

    async def open_when_due(self) -> None:
        """Begin to listen when the next send is to reach the upstream."""
        if self.next_script != Script.UNREACHABLE and not self._sites[0]._server:
            await self._sites[0].start()

    async def sent(self) -> None:
        """The adapter came back from a send: one that could not arrive is over."""
        if self.next_script == Script.UNREACHABLE:
            self.sends += 1
        await self.open_when_due()

    async def _serve_upstream(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._serve(await Call.of(request, to_upstream=True), request)

    async def _serve_elsewhere(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._serve(await Call.of(request, to_upstream=False), request)

    async def _serve(self, call: Call, request: web.BaseRequest) -> web.StreamResponse:
        try:
            reply = self._reply(call)
            if call.to_upstream:
                reply = self.tamper(reply)
        except Exception as error:
            self.faults.append(error)
            raise
        if reply.cut is Cut.NEVER_ANSWERED:
            await self._over.wait()
        return await reply.send(request)

    def _reply(self, call: Call) -> Reply:
        route = self._route(call)
        if route is not None:
            call = replace(call, params=route[1])
        self.calls.append(call)
        if not call.to_upstream:
            return self._result(call)
        if route is None:
            return Reply(404, {"error": "no such route"})
        if not self.authorised(call):
            return self.unauthorised()
        answer: Reply = getattr(self, route[0])(call)
        return answer

    def _route(self, call: Call) -> tuple[str, dict[str, str]] | None:
        if not call.to_upstream:
            return None
        for method, path, name in self.routes:
            match = pattern(path).fullmatch(call.path) if method == call.method else None
            if match:
                return name, match.groupdict()
        return None

    def _redirect(self, call: Call) -> Reply:
        """To the other host, with whatever the caller would bring along."""
        where = f"{self.elsewhere}/redirected{urlsplit(call.path).path}"
        return Reply(307, {"error": "moved"}, headers={"Location": where}, bought=True)

    def _result(self, call: Call) -> Reply:
        match = re.fullmatch(r"/results/([^/]+)/(\d)\.png", call.path)
        order = self.orders.get(match[1]) if match else None
        if match is None or order is None:
            return Reply(404, {"error": "nothing here"})
        order.downloads += 1
        good = Reply(body=image(int(match[2])), content_type="image/png")
        match order.script:
            case Script.RESULT_HTML:
                return Reply(body=b"<!doctype html><p>Sign in</p>", content_type="text/html")
            case Script.RESULT_HUGE:
                return replace(good, announced=_TERABYTE)
            case Script.RESULT_REDIRECTED:
                return Reply(302, headers={"Location": PRIVATE})
            case Script.RESULT_BROKEN if order.downloads == 1:
                return replace(good, cut=Cut.WITHIN)
        return good


@cache
def image(index: int) -> bytes:
    """The image of this place in an answer: PNG, its own colour."""
    return picture(size=SIZE, colour=("teal", "olive", "navy", "maroon")[index % 4])
