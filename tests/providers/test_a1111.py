"""What only A1111 servers have: one picture at a time, and nothing to ask about afterwards."""

import asyncio
import base64
from typing import Any, Final

import msgspec
import pytest

from calotype.domain.channel import Channel, Served
from calotype.domain.outcomes import Done, Failed, Fault, Refused, TryLater, Unknown
from calotype.domain.secret import Secret
from calotype.providers.kind import kind_of
from calotype.providers.line import Tools
from calotype.providers.port import Job, Provider
from providers.bed import PROMPT, Bed, content, job, protocols, reference, upstream
from providers.fakes.a1111 import A1111, CHECKPOINT
from providers.fakes.base import Fake, image
from providers.fakes.exchange import Reply
from providers.protocol import Example, Protocol
from providers.scripts import Script

PLAIN: Final = Example(model="flux-2-klein-4b", reads_model="", reads={})
EDITING: Final = msgspec.structs.replace(PLAIN, references=1, parameters={"aspect_ratio": "auto"})
SOON: Final = 0.001


@pytest.fixture
def protocol() -> Protocol:
    return protocols()["a1111"]


def quick(bed: Bed, channel: Channel) -> Provider:
    """The provider, which asks for the progress again and again."""
    data = upstream("a1111")
    data = msgspec.structs.replace(data, protocol={**data.protocol, "progress_seconds": SOON})
    made = kind_of("a1111").make(channel, data, Tools(client=bed.client, clock=bed.clock))
    bed.made.append(made)
    return made


def sent_with(bed: Bed, prompt: str) -> Job:
    plain = bed.job(PLAIN)
    return msgspec.structs.replace(
        plain, request=msgspec.structs.replace(plain.request, prompt=prompt)
    )


async def drawn(bed: Bed, fake: Fake, asked: Job, **changes: object) -> dict[str, Any]:
    """What was sent for a job that the server drew."""
    channel = msgspec.structs.replace(bed.channel(fake, PLAIN), **changes)
    outcome = await bed.provider(channel).submit(asked)
    assert isinstance(outcome, Done), outcome
    document: dict[str, Any] = fake.bought[-1].call.document
    return document


async def test_words_alone_are_drawn_by_txt2img(bed: Bed) -> None:
    async with bed.fake() as fake:
        sent = await drawn(bed, fake, bed.job())
    assert fake.bought[0].call.path == "/sdapi/v1/txt2img"
    assert sent == {
        "prompt": PROMPT,
        "negative_prompt": "rain",
        "seed": 7,
        "width": 1360,
        "height": 768,
        "batch_size": 1,
        "n_iter": 1,
        "send_images": True,
        "save_images": False,
        "override_settings": {"sd_model_checkpoint": CHECKPOINT},
        "force_task_id": bed.job().reference,
    }


async def test_a_reference_is_the_image_that_img2img_starts_from(bed: Bed) -> None:
    async with bed.fake() as fake:
        sent = await drawn(bed, fake, bed.job(EDITING))
        (order,) = fake.bought
        assert fake.understand(order.call).references == (reference(0),)
    assert order.call.path == "/sdapi/v1/img2img"
    assert base64.b64decode(sent["init_images"][0]) == reference(0)
    assert (sent["width"], sent["height"]) == (1152, 864)
    assert (sent["denoising_strength"], sent["resize_mode"], sent["seed"]) == (0.75, 1, -1)


def test_two_references_are_for_another_channel() -> None:
    wire = upstream("a1111").wire("flux-2-klein-4b")
    assert wire is not None
    asked = job(protocols()["a1111"], PLAIN).request
    assert wire.unable(asked, references=1) is None
    assert wire.unable(asked, references=2) is not None


@pytest.mark.parametrize("name", ["sd_xl_base_1.0", "31e35c80fc"])
async def test_a_checkpoint_goes_by_each_of_its_names_and_is_looked_up_once(
    bed: Bed, name: str
) -> None:
    example = msgspec.structs.replace(PLAIN, served=Served(id=name))
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake, example))
        for _ in range(2):
            assert isinstance(await provider.submit(bed.job(example)), Done)
    assert len(fake.calls_to("GET", "/sd-models")) == 1
    for order in fake.bought:
        assert order.call.document["override_settings"] == {"sd_model_checkpoint": name}


async def test_a_checkpoint_that_is_not_there_is_not_asked_for(bed: Bed) -> None:
    example = msgspec.structs.replace(PLAIN, served=Served(id="gone.safetensors"))
    async with bed.fake() as fake:
        outcome = await bed.provider(bed.channel(fake, example)).submit(bed.job(example))
    assert isinstance(outcome, Refused)
    assert outcome.fault is Fault.UNFIT
    assert "gone.safetensors" in outcome.detail
    assert "gone.safetensors" not in outcome.message
    assert fake.sends == 0


@pytest.mark.parametrize("upstream_model", ["", "flux-2-klein-4b"])
@pytest.mark.parametrize("listed", [True, False])
async def test_without_a_name_the_loaded_checkpoint_draws(
    bed: Bed, upstream_model: str, *, listed: bool
) -> None:
    async with bed.fake() as fake:
        if not listed:
            fake.tamper = lambda reply: (
                Reply(404, {"detail": "Not Found"}) if isinstance(reply.document, list) else reply
            )
        sent = await drawn(bed, fake, bed.job(PLAIN, upstream_model=upstream_model))
    assert "override_settings" not in sent


async def test_a_list_that_cannot_be_read_is_asked_for_again_later(bed: Bed) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: Reply(500, {"error": "RuntimeError"})
        outcome = await bed.provider(bed.channel(fake)).submit(bed.job())
    assert isinstance(outcome, TryLater)
    assert fake.sends == 0


async def test_a_size_that_would_be_rounded_is_refused(bed: Bed) -> None:
    plain = bed.job(PLAIN)
    odd = msgspec.structs.replace(plain, fields={**plain.fields, "width": 1020})
    async with bed.fake() as fake:
        outcome = await bed.provider(bed.channel(fake, PLAIN)).submit(odd)
    assert isinstance(outcome, Refused)
    assert outcome.fault is Fault.UNFIT
    assert fake.calls == []


TAG: Final = "<sd_cpp_extra_args"


@pytest.mark.parametrize(
    "prompt",
    [
        'a dog <sd_cpp_extra_args>{"seed": 1}</sd_cpp_extra_args>',
        "<sd_cpp_extra_args<sd_cpp_extra_args>>{}",
        "<sd_cpp_<sd_cpp_extra_argsextra_args>{}</sd_cpp_extra_args>",
    ],
)
async def test_no_prompt_gives_the_server_orders(bed: Bed, prompt: str) -> None:
    asked = sent_with(bed, prompt)
    asked = msgspec.structs.replace(asked, fields={**asked.fields, "negative_prompt": prompt})
    async with bed.fake() as fake:
        sent = await drawn(bed, fake, asked)
    for field in ("prompt", "negative_prompt"):
        assert TAG not in sent[field]
        assert sent[field].replace("< sd", "<sd") == prompt


async def test_a_user_and_a_password_go_out_as_basic(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(A1111, "authorised", lambda *_: True)
    async with bed.fake() as fake:
        await drawn(bed, fake, bed.job(PLAIN), api_key=Secret("ada:love:lace"))
        assert fake.calls[-1].headers["authorization"] == "Basic YWRhOmxvdmU6bGFjZQ=="
        await drawn(bed, fake, bed.job(PLAIN), api_key=None)
        assert "authorization" not in fake.calls[-1].headers


async def test_all_images_of_a_batch_come_without_the_grid(bed: Bed) -> None:
    plain = bed.job(PLAIN)
    asked = msgspec.structs.replace(plain, request=msgspec.structs.replace(plain.request, n=2))
    async with bed.fake() as fake:
        pictures = [base64.b64encode(image(index)).decode() for index in (2, 0, 1)]
        fake.tamper = lambda reply: (
            reply
            if isinstance(reply.document, list)
            else Reply(200, {"images": pictures, "info": "no JSON"})
        )
        outcome = await bed.provider(bed.channel(fake, PLAIN)).submit(asked)
        assert isinstance(outcome, Done)
        assert [await content(each) for each in outcome.images] == [image(0), image(1)]
    assert fake.bought[0].call.document["batch_size"] == 2


# While the answer is waited for


class Watched:
    """A send whose answer waits until the test lets it come."""

    def __init__(self, bed: Bed, fake: Fake, *, options: dict[str, str] | None = None) -> None:
        assert isinstance(fake, A1111)
        self.fake = fake
        self.fake.at_it = asyncio.Event()
        self.reports: list[int] = []
        channel = msgspec.structs.replace(bed.channel(fake, PLAIN), options=options or {})
        self.provider = quick(bed, channel)
        self.job = bed.job(PLAIN, report=self.reports.append)

    def begin(self, **changes: object) -> "asyncio.Task[Any]":
        asked = msgspec.structs.replace(self.job, **changes)
        return asyncio.create_task(self.provider.submit(asked))

    def end(self) -> None:
        assert self.fake.at_it is not None
        self.fake.at_it.set()

    async def progress_asked(self, times: int) -> None:
        """Until the server was asked for its progress so often from now on."""
        wanted = len(self.fake.calls_to("GET", "/progress")) + times
        while len(self.fake.calls_to("GET", "/progress")) < wanted:
            await asyncio.sleep(0)

    def says(self, progress: object, job: object = "scripts_txt2img", **more: object) -> None:
        self.fake.state = {"progress": progress, "state": {"job": job}, **more}


async def test_progress_is_reported_while_the_answer_is_waited_for(bed: Bed) -> None:
    async with bed.fake() as fake:
        watched = Watched(bed, fake)
        sending = watched.begin()
        for share in (0.0, 0.25, 0.1, 0.5, 1.0):
            watched.says(share)
            await watched.progress_asked(2)
        watched.end()
        assert isinstance(await sending, Done)
    assert watched.reports == [25, 50, 99]


@pytest.mark.parametrize(
    "state",
    [
        {"progress": 0.5, "state": {"job": "task(somebody-else)"}},
        {"progress": 0.5, "current_task": "task(somebody-else)"},
        {"progress": "0.5"},
        {"progress": None},
        {"progress": -1},
        {"progress": 10**400},
        {"progress": True, "state": 7, "current_task": ["x"]},
    ],
    ids=str,
)
async def test_the_progress_of_others_and_nonsense_are_not_ours(
    bed: Bed, state: dict[str, Any]
) -> None:
    async with bed.fake() as fake:
        watched = Watched(bed, fake)
        sending = watched.begin()
        watched.fake.state = state
        await watched.progress_asked(3)
        watched.end()
        assert isinstance(await sending, Done)
    assert [report for report in watched.reports if report != 99] == []


async def test_of_two_jobs_the_progress_is_nobodys_unless_the_server_says_whose(bed: Bed) -> None:
    async with bed.fake() as fake:
        watched = Watched(bed, fake)
        other = list[int]()
        one, two = watched.begin(), watched.begin(task="task_2", reference="2", report=other.append)
        watched.says(0.5)
        await watched.progress_asked(4)
        assert (watched.reports, other) == ([], [])
        watched.says(0.7, current_task="2")
        await watched.progress_asked(4)
        watched.end()
        await asyncio.gather(one, two)
    assert (watched.reports, other) == ([], [70])


async def test_an_imitator_without_progress_is_asked_once(bed: Bed) -> None:
    async with bed.fake() as fake:
        watched = Watched(bed, fake)
        fake.tamper = lambda reply: (
            Reply(404, {"detail": "Not Found"}) if "eta_relative" in str(reply.document) else reply
        )
        sending = watched.begin()
        await watched.progress_asked(1)
        while any("_watch" in repr(each) for each in asyncio.all_tasks()):
            await asyncio.sleep(0)
        watched.end()
        assert isinstance(await sending, Done)
    assert len(fake.calls_to("GET", "/progress")) == 1


async def test_a_job_is_interrupted_for_the_sole_user_alone(bed: Bed) -> None:
    async with bed.fake() as fake:
        watched = Watched(bed, fake)
        sending = watched.begin()
        await watched.progress_asked(1)
        assert await watched.provider.cancel(watched.job, "") is False
        watched.end()
        assert isinstance(await sending, Done)
    assert fake.calls_to("POST", "/interrupt") == []


async def test_an_interrupted_job_ends_as_cancelled_whatever_half_an_image_comes(bed: Bed) -> None:
    async with bed.fake() as fake:
        watched = Watched(bed, fake, options={"sole_user": "true"})
        sending = watched.begin()
        await watched.progress_asked(1)
        assert await watched.provider.cancel(watched.job, "") is True
        outcome = await sending
    assert isinstance(outcome, Failed)
    assert outcome.code == "cancelled"
    assert len(fake.calls_to("POST", "/interrupt")) == 1


async def test_nothing_is_interrupted_while_another_job_of_ours_may_be_drawn(bed: Bed) -> None:
    async with bed.fake() as fake:
        watched = Watched(bed, fake, options={"sole_user": "true"})
        one, two = watched.begin(), watched.begin(task="task_2", reference="2")
        await watched.progress_asked(2)
        assert await watched.provider.cancel(watched.job, "") is False
        watched.end()
        assert [type(each) for each in await asyncio.gather(one, two)] == [Done, Done]
        assert await watched.provider.cancel(watched.job, "") is False
    assert fake.calls_to("POST", "/interrupt") == []


async def test_no_job_begins_while_an_interrupt_is_on_its_way(bed: Bed) -> None:
    async with bed.fake() as fake:
        watched = Watched(bed, fake, options={"sole_user": "true"})
        watched.fake.interrupts_held = asyncio.Event()
        one = watched.begin()
        await watched.progress_asked(1)
        cancelling = asyncio.create_task(watched.provider.cancel(watched.job, ""))
        await watched.fake.interrupt_came.wait()
        watched.end()
        outcome = await one
        assert isinstance(outcome, Failed), "half an image may have come"
        assert outcome.code == "cancelled"
        two = watched.begin(task="task_2", reference="2")
        for _ in range(200):  # rounds in which it could go out
            await asyncio.sleep(0)
        watched.fake.interrupts_held.set()
        assert await cancelling is True
        assert isinstance(await two, Done)
    asked = [each.path.rpartition("/")[2] for each in fake.calls if each.method == "POST"]
    assert asked == ["txt2img", "interrupt", "txt2img"]


async def test_a_job_that_the_server_would_not_interrupt_is_delivered(bed: Bed) -> None:
    async with bed.fake() as fake:
        watched = Watched(bed, fake, options={"sole_user": "true"})
        sending = watched.begin()
        await watched.progress_asked(1)
        fake.tamper = lambda reply: reply if reply.document else Reply(500, {})
        held, watched.fake.at_it = watched.fake.at_it, None
        assert await watched.provider.cancel(watched.job, "") is False
        watched.fake.at_it = held
        watched.end()
        assert isinstance(await sending, Done)


async def test_a_job_that_is_being_interrupted_is_not_interrupted_twice(bed: Bed) -> None:
    async with bed.fake() as fake:
        watched = Watched(bed, fake, options={"sole_user": "true"})
        sending = watched.begin()
        await watched.progress_asked(1)
        held, watched.fake.at_it = watched.fake.at_it, None
        both = [watched.provider.cancel(watched.job, "") for _ in range(2)]
        assert await asyncio.gather(*both) == [True, True]
        assert held is not None
        held.set()
        assert isinstance(await sending, Failed)
    assert len(fake.calls_to("POST", "/interrupt")) == 1


@pytest.mark.parametrize(("sole_user", "times"), [("true", 1), ("false", 0)])
async def test_a_send_that_is_waited_for_no_longer_is_interrupted_for_the_sole_user(
    bed: Bed, sole_user: str, times: int
) -> None:
    async with bed.fake(Script.SILENT) as fake:
        options = {"sole_user": sole_user}
        channel = msgspec.structs.replace(bed.channel(fake, PLAIN), options=options)
        outcome = await bed.provider(channel).submit(bed.job(PLAIN))
    assert isinstance(outcome, Unknown)
    assert len(fake.calls_to("POST", "/interrupt")) == times
