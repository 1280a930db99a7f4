"""ComfyUI's jobs: two ways to ask about them, and files by name."""

import json
from typing import Any, ClassVar, Final

import msgspec
import pytest

from calotype.domain.outcomes import Accepted, Done, Failed, SourceError, Unknown
from calotype.domain.secret import Secret
from providers.bed import Bed, content, developed, followed, protocols
from providers.fakes.base import Fake, Phase, image
from providers.fakes.comfyui import OLDER, ComfyUI
from providers.fakes.exchange import Reply
from providers.protocol import Protocol
from providers.scripts import Script

PICTURES: Final = protocols()["comfyui"].examples[2]


@pytest.fixture
def protocol() -> Protocol:
    return protocols()["comfyui"]


# Jobs


async def test_an_older_server_names_the_job_itself(bed: Bed) -> None:
    async with bed.fake(OLDER) as fake:
        accepted = await bed.provider(bed.channel(fake)).submit(bed.job())
        assert isinstance(accepted, Accepted)
        (order,) = fake.bought
        assert accepted.upstream_id == f"{order.id} 9"
        assert bed.job().reference not in accepted.upstream_id
        provider = bed.provider(bed.channel(fake))
        assert isinstance(await followed(provider, bed.job(), accepted.upstream_id), Done)
    # It was asked once by the route that it does not have.
    assert (
        len(fake.calls_to("GET", order.id)) == len(fake.calls_to("GET", f"history/{order.id}")) + 1
    )


class Scenes(ComfyUI):
    """An older server whose jobs stand still in one phase."""

    phases: ClassVar[dict[str, Phase]] = {}

    def phase(self, order: Any) -> Phase:
        return Phase.CANCELLED if order.cancelled else self.phases["now"]


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch, bed: Bed) -> dict[str, Phase]:
    now: dict[str, Phase] = {"now": Phase.RUNNING}
    monkeypatch.setattr(Scenes, "phases", now)
    bed.protocol = msgspec.structs.replace(bed.protocol, fake=Scenes)
    return now


@pytest.mark.parametrize(
    ("phase", "path", "body"),
    [
        (Phase.QUEUED, "/queue", {"delete": ["{id}"]}),
        (Phase.RUNNING, "/interrupt", {"prompt_id": "{id}"}),
    ],
)
async def test_an_older_server_is_told_which_job_to_stop(
    bed: Bed, scenes: dict[str, Phase], phase: Phase, path: str, body: dict[str, Any]
) -> None:
    scenes["now"] = phase
    async with bed.fake(OLDER) as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        assert await provider.cancel(bed.job(), accepted.upstream_id) is True
        outcome = await followed(provider, bed.job(), accepted.upstream_id)
    (call,) = fake.calls_to("POST", path)
    assert json.dumps(call.document) == json.dumps(body).replace("{id}", fake.bought[0].id)
    assert isinstance(outcome, Failed)
    assert outcome.code == "cancelled"
    fake.assert_sound()


async def test_a_job_that_no_longer_runs_interrupts_no_other(
    bed: Bed, scenes: dict[str, Phase]
) -> None:
    scenes["now"] = Phase.DONE
    async with bed.fake(OLDER) as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        assert await provider.cancel(bed.job(), accepted.upstream_id) is False
    assert fake.calls_to("POST", "/interrupt") == []
    assert fake.calls_to("POST", "/queue") == []


@pytest.mark.parametrize(
    ("phase", "kind", "said"),
    [
        (Phase.DONE, Done, ""),
        (Phase.FAILED, Failed, "Allocation on device"),
        (Phase.CANCELLED, Failed, "cancelled"),
    ],
)
async def test_an_older_servers_history_tells_how_a_job_ended(
    bed: Bed, scenes: dict[str, Phase], phase: Phase, kind: type, said: str
) -> None:
    scenes["now"] = phase
    async with bed.fake(OLDER) as fake:
        outcome = await developed(bed.provider(bed.channel(fake)), bed.job())
    assert isinstance(outcome, kind)
    assert said in getattr(outcome, "message", "")


async def test_what_a_node_says_of_its_failure_is_told_without_the_servers_paths(
    bed: Bed,
) -> None:
    async with bed.fake(Script.FAILED) as fake:
        outcome = await developed(bed.provider(bed.channel(fake)), bed.job())
    assert isinstance(outcome, Failed)
    assert "KSampler: RuntimeError: Allocation on device" in outcome.message
    assert "/srv/operator" not in outcome.message


async def test_a_restart_forgets_a_job(bed: Bed) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        fake.orders.clear()
        outcome = await provider.poll(bed.job(), accepted.upstream_id)
    assert isinstance(outcome, Unknown)
    for path in ("jobs/{}", "/queue", "history/{}"):
        assert fake.calls_to("GET", path.format(bed.job().reference))


async def test_what_cannot_be_asked_is_not_known_to_be_unsent(bed: Bed) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: Reply(503, {"error": "starting"})
        provider = bed.provider(bed.channel(fake))
        assert isinstance(await provider.recover(bed.job()), Unknown)
        assert isinstance(await provider.recover(bed.job(reference="")), Unknown)


async def test_a_recovered_job_gives_its_image_though_its_workflow_is_gone(bed: Bed) -> None:
    async with bed.fake(Script.CUT_BEFORE) as fake:
        provider = bed.provider(bed.channel(fake))
        await provider.submit(bed.job())
        gone = bed.job(upstream_model="gone")
        accepted = await provider.recover(gone)
        assert accepted == Accepted(gone.reference, 0)
        only_output(fake)
        done = await followed(provider, gone, accepted.upstream_id)
        assert isinstance(done, Done)
        assert [await content(each) for each in done.images] == [image(0)]


# Files


def files(fake: Fake, *found: object, node: str = "9") -> None:
    """The job is finished, with these files."""
    outputs = {"1": {"images": [{"filename": "other.png", "type": "output"}]}}
    document = {"status": "completed", "outputs": {**outputs, node: {"images": list(found)}}}
    fake.tamper = lambda reply: Reply(200, document) if reply.document else reply


def only_output(fake: Fake) -> None:
    """The job is finished, and one node alone has shown images."""

    def without_preview(reply: Reply) -> Reply:
        if isinstance(reply.document, dict) and "outputs" in reply.document:
            reply.document["outputs"].pop("preview")
        return reply

    fake.tamper = without_preview


async def test_files_are_asked_for_by_what_the_history_says_and_nothing_else(bed: Bed) -> None:
    odd = {"filename": "a&b=c #1?.png", "subfolder": "x/../y", "type": "temp"}
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        files(fake, odd)
        done = await provider.poll(bed.job(), accepted.upstream_id)
        assert isinstance(done, Done)
        with pytest.raises(SourceError):  # the fake has no such file
            await content(done.images[0])
    (call,) = fake.calls_to("GET", "/view")
    assert dict(call.query) == odd


@pytest.mark.parametrize(
    "file",
    [
        None,
        "x.png",
        {"filename": 7, "subfolder": "", "type": "output"},
        {"filename": "", "subfolder": "", "type": "output"},
        {"filename": "x.png", "subfolder": "", "type": "input"},
        {"filename": "x.png", "subfolder": "", "type": "secrets"},
        {"filename": "x.png"},
    ],
    ids=str,
)
async def test_what_names_no_file_of_the_servers_own_is_no_image(bed: Bed, file: object) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        files(fake, file)
        assert await provider.poll(bed.job(), accepted.upstream_id) == Done(())


async def test_more_images_than_asked_for_are_not_taken(bed: Bed) -> None:
    file = {"filename": "x.png", "subfolder": "", "type": "output"}
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake))
        accepted = await provider.submit(bed.job())
        assert isinstance(accepted, Accepted)
        files(fake, file, file)
        done = await provider.poll(bed.job(), accepted.upstream_id)
    assert isinstance(done, Done)
    assert len(done.images) == 1


@pytest.mark.parametrize(
    ("key", "header"),
    [(None, None), (Secret("a-token"), "Bearer a-token"), (Secret("a:b"), "Basic YTpi")],
    ids=["none", "token", "user and password"],
)
async def test_a_proxys_credential_goes_with_every_call(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, key: Secret | None, header: str | None
) -> None:
    monkeypatch.setattr(ComfyUI, "authorised", lambda *_: True)
    async with bed.fake() as fake:
        assert isinstance(fake, ComfyUI)
        channel = msgspec.structs.replace(bed.channel(fake, PICTURES), api_key=key)
        done = await developed(bed.provider(channel), bed.job(PICTURES))
        assert isinstance(done, Done)
        await content(done.images[0])
    assert {call.headers.get("authorization") for call in fake.calls} == {header}
