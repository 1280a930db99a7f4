"""What the suite works with: fakes, channels that lead to them, and the real providers."""

import importlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Final

import msgspec

from calotype.catalog import load_catalog
from calotype.domain.catalog import Catalog
from calotype.domain.channel import Channel, Served
from calotype.domain.outcomes import (
    Accepted,
    ImageSource,
    PollOutcome,
    RecoverOutcome,
    Running,
    SubmitOutcome,
    TryLater,
)
from calotype.domain.secret import Secret
from calotype.domain.task import Request
from calotype.domain.validation import normalise
from calotype.domain.wire import Upstream
from calotype.net.client import UpstreamClient
from calotype.providers.kind import kind_of
from calotype.providers.line import Tools
from calotype.providers.port import Job, Provider, ReferenceImage
from harness import picture
from providers.fakes.base import CALLBACK_SECRET, KEY, Fake
from providers.protocol import CALLBACKS, Example, Protocol
from providers.scripts import Script
from services.bench import SOON, Clock

PROMPT: Final = "a lighthouse “at dusk”, 夜 & more"
SLUG: Final = "under-test"
REFERENCE_SIZE: Final = (64, 48)
PATIENCE: Final = 30.0
"""Seconds that a channel waits for an answer to a send."""
IMPATIENCE: Final = 0.6
"""The same, where none comes."""
CALLBACK_URL: Final = "https://calotype.example/v1/callbacks/10/token"


@cache
def protocols() -> Mapping[str, Protocol]:
    """Every protocol of the suite: each file in ``cases/`` has one."""
    names = sorted(path.stem for path in (Path(__file__).parent / "cases").glob("*.py"))
    found = [importlib.import_module(f"providers.cases.{name}").PROTOCOL for name in names]
    return {protocol.provider: protocol for protocol in found}


@cache
def catalog() -> Catalog:
    """The shipped catalog, read once."""
    return load_catalog()


def upstream(provider: str) -> Upstream:
    """The shipped data of a provider."""
    return catalog().upstreams[provider]


@cache
def reference(index: int) -> bytes:
    """The reference image of this place, each another one."""
    colours = ("red", "green", "blue", "black", "white", "grey", "pink", "gold")
    return picture(size=REFERENCE_SIZE, colour=colours[index % len(colours)])


def public_url(index: int) -> str:
    """Where the world can fetch a reference from us."""
    return f"https://calotype.example/v1/assets/reference-{index}.png?signature=x"


@asynccontextmanager
async def _opened(content: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
    async def chunks() -> AsyncIterator[bytes]:
        yield content[:10]
        yield content[10:]

    yield chunks()


def references(count: int, *, public: bool = False) -> tuple[ReferenceImage, ...]:
    """References as the runner hands them over."""
    return tuple(
        ReferenceImage(
            content_type="image/png",
            width=REFERENCE_SIZE[0],
            height=REFERENCE_SIZE[1],
            size=len(reference(index)),
            open=partial(_opened, reference(index)),
            url=public_url(index) if public else None,
        )
        for index in range(count)
    )


def request(example: Example) -> Request:
    """The normalised request of an example."""
    body = {"model": example.model, "prompt": PROMPT, **example.parameters}
    asked = normalise(catalog(), body, text=False)
    return Request(asked.model, asked.prompt, asked.n, asked.parameters)


def job(protocol: Protocol, example: Example, **changes: object) -> Job:
    """One attempt at an example, as the runner makes it."""
    wire = upstream(protocol.provider).wire(example.model)
    assert wire is not None, f"{protocol.provider} does not serve {example.model}"
    asked, model = request(example), catalog().get(example.model)
    assert wire.unable(asked, references=example.references) is None
    served = example.served or Served()
    made = Job(
        task="task_0000000000001",
        attempt=1,
        reference="0b7e4dd6-3f3a-4b0e-9d0c-0f3c7f6f8a11",
        model=model,
        upstream_model=wire.model_id(served.id, served.edit, references=example.references),
        request=asked,
        references=references(example.references, public=example.public),
        fields=wire.fields(model, asked, reference_sizes=[REFERENCE_SIZE] * example.references),
    )
    return msgspec.structs.replace(made, **changes)


class Observed:
    """A provider between the runner and the real one.

    It notes every outcome, lets the fake know when a send is over, plays callbacks, and turns
    every wait that an outcome asks for into a millisecond: what was asked for is in the outcomes
    noted.
    """

    def __init__(self, inner: Provider, fake: Fake, clock: Clock) -> None:
        self.inner = inner
        self.fake = fake
        self.free = inner.free
        self.synchronous = inner.synchronous
        self.submitted: list[SubmitOutcome] = []
        self.polled: list[PollOutcome] = []
        self.nudge: Callable[[str], object] = lambda _upstream_id: None
        self._clock = clock

    async def submit(self, job: Job) -> SubmitOutcome:
        if self.fake.next_script in CALLBACKS:
            job = msgspec.structs.replace(job, callback_url=CALLBACK_URL)
        outcome = await self.inner.submit(job)
        self.submitted.append(outcome)
        await self.fake.sent()
        match outcome:
            case Accepted():
                return msgspec.structs.replace(outcome, poll_after=SOON)
            case TryLater():
                return msgspec.structs.replace(outcome, retry_after=SOON)
        return outcome

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        self._call_back(upstream_id.partition(" ")[0])
        outcome = await self.inner.poll(job, upstream_id)
        self.polled.append(outcome)
        match outcome:
            case Running():
                return msgspec.structs.replace(outcome, poll_after=SOON)
            case TryLater():
                return msgspec.structs.replace(outcome, retry_after=SOON)
        return outcome

    def _call_back(self, name: str) -> None:
        """Deliver callbacks as the API does: what the provider believes wakes the runner."""
        order = self.fake.bought[-1]
        if order.reads or order.script not in CALLBACKS:
            return
        headers, body = self.fake.delivery(order, at=self._clock.now)
        genuine = order.script == Script.CALLBACK_TWICE
        for _ in range(2):
            told = self.callback(headers if genuine else {}, body)
            assert told == (name if genuine else None)
            if told is not None:
                self.nudge(told)

    async def recover(self, job: Job) -> RecoverOutcome:
        return await self.inner.recover(job)

    async def cancel(self, job: Job, upstream_id: str) -> bool:
        return await self.inner.cancel(job, upstream_id)

    def callback(self, headers: Mapping[str, str], body: bytes) -> str | None:
        return self.inner.callback(headers, body)

    async def close(self) -> None:
        await self.inner.close()


@dataclass
class Bed:
    """One protocol under test: makes fakes, channels and providers, and closes them."""

    protocol: Protocol
    client: UpstreamClient
    clock: Clock = field(default_factory=Clock)
    made: list[Provider] = field(default_factory=list)

    def fake(self, *plan: str) -> AbstractAsyncContextManager[Fake]:
        """The upstream, which treats one send after the other by this plan."""
        made = self.protocol.fake(plan=plan)
        made.files |= {public_url(index): reference(index) for index in range(8)}
        return made.running()

    def channel(self, fake: Fake, example: Example | None = None) -> Channel:
        """A channel that leads to a fake."""
        chosen = example or self.protocol.examples[0]
        return Channel(
            id=10,
            slug=SLUG,
            name="Under test",
            provider=self.protocol.provider,
            base_url=fake.base_url,
            api_key=Secret(KEY),
            callback_secret=Secret(CALLBACK_SECRET),
            models={chosen.model: chosen.served or Served()},
            timeout_seconds=IMPATIENCE if Script.SILENT in fake.plan else PATIENCE,
            options={
                name: value.replace("{url}", fake.url)
                for name, value in self.protocol.options.items()
            },
        )

    def provider(self, channel: Channel) -> Provider:
        """The real provider, as a process has it that was just started."""
        tools = Tools(client=self.client, clock=self.clock)
        data = upstream(self.protocol.provider)
        made = kind_of(self.protocol.provider).make(channel, data, tools)
        self.made.append(made)
        return made

    def observed(self, fake: Fake, example: Example | None = None) -> Observed:
        """The real provider, watched."""
        return Observed(self.provider(self.channel(fake, example)), fake, self.clock)

    def job(self, example: Example | None = None, **changes: object) -> Job:
        """One attempt at an example; the first unless given."""
        return job(self.protocol, example or self.protocol.examples[0], **changes)


@asynccontextmanager
async def opened_bed(protocol: Protocol, spool: Path) -> AsyncIterator[Bed]:
    """A bed with a client of its own."""
    bed = Bed(protocol, UpstreamClient(spool, allow_hosts=frozenset({"127.0.0.1"})))
    try:
        yield bed
    finally:
        for provider in bed.made:
            await provider.close()
        await bed.client.close()


async def followed(provider: Provider, job: Job, upstream_id: str) -> PollOutcome:
    """Poll until something final comes, as often as any script needs."""
    outcome = await provider.poll(job, upstream_id)
    for _ in range(8):
        if not isinstance(outcome, Running | TryLater):
            break
        outcome = await provider.poll(job, upstream_id)
    return outcome


async def developed(provider: Provider, job: Job) -> SubmitOutcome | PollOutcome:
    """Send once, and poll to the end."""
    outcome = await provider.submit(job)
    if isinstance(outcome, Accepted):
        return await followed(provider, job, outcome.upstream_id)
    return outcome


async def content(source: ImageSource) -> bytes:
    """A whole image."""
    async with source.open() as chunks:
        return b"".join([chunk async for chunk in chunks])
