"""Local pictures, from the worker's side: an engine of our own hand plays the real one."""

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from calotype.domain.channel import Channel, Served
from calotype.domain.errors import Unavailable
from calotype.domain.outcomes import Done, Failed, Fault, Refused, SubmitOutcome, TryLater
from calotype.domain.task import Request
from calotype.providers.diffusers.batching import LONGEST_PAUSE, Batcher, pause_after
from calotype.providers.diffusers.engines import TOLD
from calotype.providers.diffusers.options import Options
from calotype.providers.diffusers.provider import Diffusers, steps_of
from calotype.providers.line import Tools
from calotype.providers.port import Job
from providers.bed import catalog, content, reference, references, upstream

HERE: Final = Path(__file__).parents[1]
MODEL: Final = "sd-turbo"
PAUSE: Final = 0.05
"""Before an engine that does not come up is started again."""
LONG_MS: Final = "10000"
"""A window that no test waits for."""


class Workshop:
    """Channels of local pictures whose engines are ours."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log"
        self._go = folder / "go"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.made: list[Diffusers] = []
        self._tasks = 0

    def channel(self, **options: str) -> Channel:
        said = {"weights": "acme/weights", "batch_window_ms": "0", **options}
        return Channel(
            id=10,
            slug="local",
            name="Local",
            provider="diffusers",
            models={MODEL: Served()},
            options=said,
            timeout_seconds=60.0,
        )

    def provider(
        self, channel: Channel | None = None, *, patient: bool = False, **options: str
    ) -> Diffusers:
        def batcher(options: Options, **said: Any) -> Batcher:
            said |= {"silent_seconds": 60.0} if patient else {}
            return Batcher(options, module="providers.fakes.engine", first_pause=PAUSE, **said)

        tools = Tools(client=None, clock=lambda: 0, models=catalog().models)  # type: ignore[arg-type]  # nothing goes out
        channel = channel or self.channel(**options)
        made = Diffusers(channel, upstream("diffusers"), tools, batcher=batcher)
        self.made.append(made)
        return made

    def job(self, prompt: str, *, images: int = 0, n: int = 1, **parameters: Any) -> Job:
        self._tasks += 1
        model, wire = catalog().get(MODEL), upstream("diffusers").wire(MODEL)
        assert wire is not None
        usual: dict[str, Any] = {
            each.name: each.default for each in model.parameters if each.default is not None
        }
        asked = Request(MODEL, prompt, n, usual | parameters)
        return Job(
            task=f"task_{self._tasks:013d}",
            attempt=1,
            model=model,
            upstream_model=wire.id,
            request=asked,
            references=references(images),
            fields=wire.fields(model, asked, reference_sizes=[(64, 48)] * images),
        )

    def watched(self, prompt: str, **asked: Any) -> tuple[Job, asyncio.Event]:
        """A job, and what is set when half of it is drawn."""
        half = asyncio.Event()
        seen = msgspec.structs.replace(
            self.job(prompt, **asked), report=lambda percent: half.set() if percent >= 50 else None
        )
        return seen, half

    def go(self) -> None:
        """Let the engines go on that hold."""
        self._go.touch()

    def notes(self, key: str) -> list[dict[str, Any]]:
        if not self._log.exists():
            return []
        notes = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [note for note in notes if key in note]

    @property
    def batches(self) -> list[list[str]]:
        """The prompts of each batch."""
        return [note["draw"] for note in self.notes("draw")]

    @property
    def files(self) -> list[str]:
        """Every file in the temporary folder."""
        return [str(path) for path in self.temporary.rglob("*") if path.is_file()]


@pytest.fixture
async def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workshop]:
    made = Workshop(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent / 'src'}")
    monkeypatch.setenv("PYTHON_ENGINE_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(tempfile, "tempdir", str(made.temporary))
    yield made
    for provider in made.made:
        await provider.close()
    assert list(made.temporary.iterdir()) == [], "nothing is left behind"


def of_memory(outcome: SubmitOutcome) -> bool:
    return (
        isinstance(outcome, Refused)
        and outcome.code == "local_out_of_memory"
        and outcome.fault is Fault.UNFIT
    )


async def test_a_picture_is_drawn_and_leaves_no_file(workshop: Workshop) -> None:
    provider = workshop.provider()
    outcome = await provider.submit(workshop.job("a fern"))
    assert isinstance(outcome, Done)
    assert (await content(outcome.images[0])).startswith(b"\x89PNG")
    assert await content(outcome.images[0]) == await content(outcome.images[0])
    assert workshop.files == []


async def test_the_engine_is_told_all_that_was_asked(workshop: Workshop) -> None:
    provider = workshop.provider(dtype="float16", offload="model", device="cuda:1")
    asked = workshop.job("a fern", images=1, seed=7, guidance=1.5, negative_prompt="fog")
    await provider.submit(asked)
    (load,), (drawn,) = workshop.notes("load"), workshop.notes("draw")
    assert load["load"] == {
        "type": "load",
        "weights": "acme/weights",
        "device": "cuda:1",
        "dtype": "float16",
        "offload": "model",
        "compile": False,
        "compiled": "",
        "safety": False,
        "warm_up": [512, 512],
    }
    assert (drawn["width"], drawn["height"], drawn["guidance"]) == (512, 512, 1.5)
    assert drawn["references"] == [[len(reference(0))]]
    # One step is drawn: half of two, by a strength of a half.
    assert (drawn["steps"], drawn["strength"], drawn["seeds"]) == (2, 0.5, [7])


async def test_a_task_without_a_seed_has_the_same_one_each_time(workshop: Workshop) -> None:
    provider, job = workshop.provider(), workshop.job("a fern", n=2)
    for attempt in (1, 2):
        await provider.submit(msgspec.structs.replace(job, attempt=attempt))
    await provider.submit(workshop.job("a fern"))
    seeds = [seed for note in workshop.notes("draw") for seed in note["seeds"]]
    assert seeds[1] == seeds[0] + 1
    assert seeds[:2] == seeds[2:4]
    assert seeds[4] != seeds[0]


async def test_what_fits_together_is_drawn_together(workshop: Workshop) -> None:
    provider = workshop.provider(batch="3", batch_window_ms=LONG_MS)
    jobs = [workshop.job("one"), workshop.job("two", n=2)]
    outcomes = await asyncio.gather(*map(provider.submit, jobs))
    assert [len(each.images) for each in outcomes if isinstance(each, Done)] == [1, 2]
    assert workshop.batches == [["one", "two", "two"]]


async def test_more_pictures_than_a_batch_are_split(workshop: Workshop) -> None:
    provider = workshop.provider(batch="2")
    outcome = await provider.submit(workshop.job("a fern", n=5))
    assert isinstance(outcome, Done)
    assert len(outcome.images) == 5
    assert [len(batch) for batch in workshop.batches] == [2, 2, 1]


async def test_other_shapes_come_in_their_order_and_gather_meanwhile(workshop: Workshop) -> None:
    provider = workshop.provider(batch="4")
    first, half = workshop.watched("hold")
    sends = [asyncio.create_task(provider.submit(first))]
    await half.wait()
    wide: dict[str, Any] = {"aspect_ratio": "16:9"}
    later = [workshop.job("w1", **wide), workshop.job("s1"), workshop.job("w2", **wide)]
    later += [workshop.job("s2", steps=2), workshop.job("s3")]
    for job in later:
        sends.append(asyncio.create_task(provider.submit(job)))
        await asyncio.sleep(0)
    while len(workshop.made[0]._under_way) < len(sends):
        await asyncio.sleep(0)
    workshop.go()
    await asyncio.gather(*sends)
    assert workshop.batches == [["hold"], ["w1", "w2"], ["s1", "s3"], ["s2"]]


async def test_no_more_are_drawn_at_once_than_memory_was_measured_for(workshop: Workshop) -> None:
    provider = workshop.provider(weights="acme/tight", batch="4", batch_window_ms=LONG_MS)
    await provider.submit(workshop.job("a fern", n=4))
    assert [len(batch) for batch in workshop.batches] == [2, 2]


async def test_progress_is_that_of_the_steps(workshop: Workshop) -> None:
    seen: list[int] = []
    job = msgspec.structs.replace(workshop.job("a fern"), report=seen.append)
    await workshop.provider().submit(job)
    assert seen == [25, 50, 75, 99]


async def test_a_job_is_cancelled_while_it_is_drawn(workshop: Workshop) -> None:
    provider = workshop.provider()
    job, half = workshop.watched("hold")
    sending = asyncio.create_task(provider.submit(job))
    await half.wait()
    assert await provider.cancel(job, "")
    outcome = await sending
    assert isinstance(outcome, Failed)
    assert outcome.code == "cancelled"
    assert not await provider.cancel(job, "")
    assert isinstance(await provider.submit(workshop.job("next")), Done)
    assert len(workshop.notes("load")) == 1


async def test_a_job_is_cancelled_while_it_waits(workshop: Workshop) -> None:
    provider = workshop.provider()
    first, half = workshop.watched("hold")
    sending = asyncio.create_task(provider.submit(first))
    await half.wait()
    second = workshop.job("second", images=1)
    waiting = asyncio.create_task(provider.submit(second))
    while not await provider.cancel(second, ""):
        await asyncio.sleep(0)
    outcome = await waiting
    assert isinstance(outcome, Failed)
    assert outcome.code == "cancelled"
    workshop.go()
    assert isinstance(await sending, Done)
    assert workshop.batches == [["hold"]]


async def test_a_job_that_takes_too_long_is_stopped_and_may_come_again(workshop: Workshop) -> None:
    channel = msgspec.structs.replace(workshop.channel(), timeout_seconds=1.0)
    outcome = await workshop.provider(channel).submit(workshop.job("hold"))
    assert isinstance(outcome, TryLater)
    assert workshop.files == []


async def test_a_job_is_cancelled_while_its_references_come(workshop: Workshop) -> None:
    provider = workshop.provider()
    job = workshop.job("never", images=1)

    class Slow:
        @asynccontextmanager
        async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
            assert await provider.cancel(job, "")
            async with job.references[0].open() as chunks:
                yield chunks

    outcome = await provider.submit(msgspec.structs.replace(job, references=(Slow(),)))
    assert isinstance(outcome, Failed)
    assert outcome.code == "cancelled"
    assert workshop.batches == []


async def test_a_folder_that_somebody_cleared_away_is_made_anew(workshop: Workshop) -> None:
    provider = workshop.provider()
    await provider.submit(workshop.job("a fern"))
    for folder in workshop.temporary.iterdir():
        shutil.rmtree(folder)
    assert isinstance(await provider.submit(workshop.job("a fern")), Done)


def test_an_engine_is_told_no_key() -> None:
    keys = ("HF_TOKEN", "NVIDIA_API_KEY", "CALOTYPE_DATABASE_URL", "OPENAI_API_KEY")
    assert not [key for key in keys if key.startswith(TOLD)]
    said = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HF_HOME", "HSA_OVERRIDE_GFX_VERSION")
    assert all(name.startswith(TOLD) for name in said)


async def test_what_comes_before_a_job_is_none_of_its_time(workshop: Workshop) -> None:
    no_time = msgspec.structs.replace(workshop.channel(weights="acme/slow"), timeout_seconds=0.0)
    provider = workshop.provider(no_time, patient=True)
    sending = asyncio.create_task(provider.submit(workshop.job("a fern")))
    await until(lambda: len(workshop.notes("load")) == 1)
    workshop.go()
    assert isinstance(await sending, TryLater)
    await until(lambda: workshop.batches == [["a fern"]])


async def killed(workshop: Workshop, provider: Diffusers, job: Job, half: asyncio.Event) -> Any:
    """The send of a job whose engine is killed when half of it is drawn, once."""
    sending = asyncio.create_task(provider.submit(job))
    await half.wait()
    os.kill(workshop.notes("draw")[-1]["pid"], signal.SIGKILL)
    workshop.go()
    return await sending


async def test_what_an_engine_was_killed_at_is_drawn_again(workshop: Workshop) -> None:
    provider = workshop.provider()
    outcome = await killed(workshop, provider, *workshop.watched("hold", images=1))
    assert isinstance(outcome, Done)
    assert workshop.batches == [["hold"], ["hold"]]
    assert len(workshop.notes("load")) == 2


async def test_neighbours_of_a_picture_that_kills_engines_are_drawn(workshop: Workshop) -> None:
    provider = workshop.provider(batch="2", batch_window_ms=LONG_MS)
    good, bad = await asyncio.gather(
        provider.submit(workshop.job("good")), provider.submit(workshop.job("die"))
    )
    assert isinstance(good, Done)
    assert of_memory(bad)
    assert workshop.batches == [["good", "die"], ["good"], ["die"]]


async def test_an_engine_that_ends_twice_at_a_picture_fails_it(workshop: Workshop) -> None:
    outcome = await workshop.provider().submit(workshop.job("leave"))
    assert isinstance(outcome, Failed)
    assert outcome.code == "upstream_failed"
    assert workshop.batches == [["leave"], ["leave"]]


async def test_a_batch_that_is_too_much_is_drawn_one_by_one(workshop: Workshop) -> None:
    provider = workshop.provider(batch="4", batch_window_ms=LONG_MS)
    outcome = await provider.submit(workshop.job("full", n=4))
    assert isinstance(outcome, Done)
    assert len(outcome.images) == 4
    await provider.submit(workshop.job("small", n=4))
    assert [len(batch) for batch in workshop.batches] == [4, 1, 1, 1, 1, 2, 2]
    assert len(workshop.notes("load")) == 2


async def test_a_picture_that_is_too_much_by_itself_fails(workshop: Workshop) -> None:
    provider = workshop.provider()
    assert of_memory(await provider.submit(workshop.job("always-full")))
    assert isinstance(await provider.submit(workshop.job("small")), Done)
    assert len(workshop.notes("load")) == 2


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("unsafe", "content_policy_violation"),
        ("unfit", "upstream_rejected"),
        ("failed", "upstream_failed"),
    ],
)
async def test_what_an_engine_refuses_is_told_in_our_words(
    workshop: Workshop, word: str, code: str
) -> None:
    outcome = await workshop.provider().submit(workshop.job(word))
    assert isinstance(outcome, Failed | Refused)
    assert outcome.code == code
    assert "it is" not in outcome.message


async def test_weights_that_are_missing_are_told_to_the_operator(workshop: Workshop) -> None:
    provider = workshop.provider(weights="acme/missing")
    outcome = await provider.submit(workshop.job("a fern"))
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.fault) == ("upstream_unavailable", Fault.MODEL)
    assert outcome.detail == "There is nothing in acme/missing."
    again = await provider.submit(workshop.job("a fern"))
    assert isinstance(again, Refused)


def test_of_a_share_by_strength_as_many_steps_are_drawn_as_were_asked_for() -> None:
    for steps in range(1, 101):
        for strength in [percent / 100 for percent in range(1, 101)]:
            assert int(steps_of(steps, strength) * strength) == steps


def test_an_engine_that_never_starts_is_tried_for_ever_at_the_longest_pause() -> None:
    assert [pause_after(failures, first=1.0) for failures in (1, 2, 9, 10, 10**6)] == [
        *(1.0, 2.0, 256.0, LONGEST_PAUSE, LONGEST_PAUSE)
    ]


async def test_an_engine_that_cannot_start_is_not_started_in_a_storm(workshop: Workshop) -> None:
    provider = workshop.provider(weights="acme/crashing")
    first = await provider.submit(workshop.job("a fern"))
    second = await provider.submit(workshop.job("a fern"))
    assert isinstance(first, TryLater)
    assert isinstance(second, TryLater)
    assert first.retry_after is not None
    assert first.retry_after >= PAUSE
    assert "SIGTERM" in first.message


async def until(met: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    while not met():
        await asyncio.sleep(0.01)


async def test_a_channel_is_not_ready_until_its_weights_are_loaded(workshop: Workshop) -> None:
    provider = workshop.provider(weights="acme/slow")
    provider.check()
    provider.start()
    with pytest.raises(Unavailable, match="Channel local loads its weights"):
        provider.check()
    await until(lambda: bool(workshop.notes("load")))
    with pytest.raises(Unavailable):
        provider.check()
    workshop.go()
    assert isinstance(await provider.submit(workshop.job("a fern")), Done)
    provider.check()


async def test_weights_that_cannot_be_loaded_do_not_hold_a_server_up(workshop: Workshop) -> None:
    provider = workshop.provider(weights="acme/missing")
    provider.start()
    assert isinstance(await provider.submit(workshop.job("a fern")), Refused)
    provider.check()


async def test_an_engine_without_work_is_started_again(workshop: Workshop) -> None:
    provider = workshop.provider()
    provider.start()
    await provider.submit(workshop.job("a fern"))
    os.kill(workshop.notes("load")[0]["pid"], signal.SIGKILL)
    await until(lambda: len(workshop.notes("load")) == 2)
    assert isinstance(await provider.submit(workshop.job("a fern")), Done)


async def test_without_warm_up_the_first_task_loads(workshop: Workshop) -> None:
    provider = workshop.provider(warm_up="false")
    provider.start()
    provider.check()
    assert workshop.notes("load") == []
    assert isinstance(await provider.submit(workshop.job("a fern")), Done)


async def test_a_channel_that_was_replaced_lets_its_engine_go(workshop: Workshop) -> None:
    provider = workshop.provider()
    job, half = workshop.watched("hold")
    sending = asyncio.create_task(provider.submit(job))
    await half.wait()
    provider.retire()
    workshop.go()
    assert isinstance(await sending, Done)
    pid = workshop.notes("load")[0]["pid"]
    await until(lambda: not alive(pid))


async def test_closing_ends_an_engine_in_the_middle_of_a_picture(workshop: Workshop) -> None:
    provider = workshop.provider()
    job, half = workshop.watched("hold")
    sending = asyncio.create_task(provider.submit(job))
    await half.wait()
    await provider.close()
    assert isinstance(await sending, TryLater)
    assert not alive(workshop.notes("load")[0]["pid"])


async def test_two_channels_have_two_engines(workshop: Workshop) -> None:
    one, two = workshop.provider(), workshop.provider()
    await asyncio.gather(*(each.submit(workshop.job("a fern")) for each in (one, two)))
    assert len({note["pid"] for note in workshop.notes("load")}) == 2


async def test_what_a_killed_worker_left_is_removed(workshop: Workshop) -> None:
    left = workshop.temporary / "calotype-diffusers-left"
    left.mkdir()
    (left / "picture.png").write_bytes(b"x")
    running = workshop.provider()
    await running.submit(workshop.job("a fern"))
    assert not left.exists()
    await workshop.provider().submit(workshop.job("a fern"))
    assert len(list(workshop.temporary.iterdir())) == 2


async def test_prompts_are_not_logged(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    provider = workshop.provider()
    for prompt in ("a failed secret", "a leave secret", "a die secret"):
        await provider.submit(workshop.job(prompt))
    assert caplog.text
    assert "secret" not in caplog.text


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
