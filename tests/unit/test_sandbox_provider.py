"""The sandbox as an upstream that makes several images and can be stopped."""

import msgspec
import pytest

from calotype.catalog import load_catalog
from calotype.domain.outcomes import Accepted, Done, Failed, Running
from calotype.domain.task import Request
from calotype.providers.port import Job
from calotype.providers.sandbox.drawing import Picture, draw
from calotype.providers.sandbox.provider import SandboxProvider
from calotype.providers.sandbox.studio import Studio

MODEL = load_catalog().get("recraft-v4.1")


class Moment:
    """A clock that is set."""

    now = 1_000

    def __call__(self) -> int:
        return self.now


def job(prompt: str, *, n: int = 1, task: str = "task_1") -> Job:
    request = Request(MODEL.id, prompt, n, {"aspect_ratio": "1:1"})
    return Job(task=task, attempt=1, model=MODEL, upstream_model=MODEL.id, request=request)


async def begun(provider: SandboxProvider, asked: Job) -> str:
    accepted = await provider.submit(asked)
    assert isinstance(accepted, Accepted)
    return accepted.upstream_id


def provider() -> SandboxProvider:
    return SandboxProvider(Studio(1), seconds=5, clock=Moment())


async def test_a_cancelled_job_ends_and_no_other_does() -> None:
    sandbox, one, two = provider(), job("a boat"), job("a boat", task="task_2")
    name, other = await begun(sandbox, one), await begun(sandbox, two)
    assert name == other, "at the same moment they have the same name"
    assert await sandbox.cancel(one, name) is True
    assert isinstance(await sandbox.poll(two, other), Running)
    stopped = await sandbox.poll(one, name)
    assert isinstance(stopped, Failed)
    assert (stopped.code, stopped.cost_micro_usdc) == ("cancelled", None)


@pytest.mark.parametrize("prompt", ["sandbox:unstoppable", "x sandbox:never sandbox:unstoppable"])
async def test_a_job_that_cannot_be_stopped_goes_on(prompt: str) -> None:
    sandbox, asked = provider(), job(prompt)
    name = await begun(sandbox, asked)
    assert await sandbox.cancel(asked, name) is False
    assert isinstance(await sandbox.poll(asked, name), Running)


async def test_what_is_no_job_of_the_sandbox_is_not_stopped() -> None:
    assert await provider().cancel(job("a boat"), "") is False
    assert await provider().cancel(job("a boat"), "up-1") is False


@pytest.mark.parametrize(
    ("prompt", "bad"),
    [
        ("a boat", 0),
        ("sandbox:malformed", 3),
        ("sandbox:malformed=2", 2),
        ("sandbox:malformed=9", 3),
        ("sandbox:malformed=0", 0),
    ],
)
async def test_it_makes_as_many_images_as_were_asked_for(prompt: str, bad: int) -> None:
    sandbox = SandboxProvider(Studio(1), seconds=0, clock=Moment())
    done = await sandbox.submit(job(prompt, n=3))
    assert isinstance(done, Done)
    kinds = [type(each).__name__ for each in done.images]
    assert kinds == ["_Malformed"] * bad + ["_Drawing"] * (3 - bad)


def test_each_of_several_pictures_is_another_and_the_same_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("pictures")
    first = Picture("a boat", MODEL.id, 128, 96, "png", "")

    def drawn(picture: Picture) -> bytes:
        draw(picture, str(folder / "picture"))
        return (folder / "picture").read_bytes()

    pictures = [drawn(msgspec.structs.replace(first, place=place)) for place in (0, 1, 2, 1)]
    assert pictures[0] == drawn(first)
    assert len(set(pictures)) == 3
    assert pictures[1] == pictures[3]
