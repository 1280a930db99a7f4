"""A seeded slice of the fuzzer (``make fuzz``), and the same inputs over HTTP."""

from pathlib import Path

import pytest

from harness import Server, running_server
from imaging.corpus import samples
from imaging.fuzz import fuzz, opened_as
from imaging.mutating import SCRIPT, Mutator

REFUSALS = {(413, "reference_too_large"), (400, "unsupported_reference_type")}
IMAGES = {"image/jpeg", "image/png", "image/webp"}


@pytest.mark.parametrize("seed", [11, 12])
async def test_the_intake_refuses_mutated_images_or_takes_them_for_what_they_are(
    tmp_path: Path, seed: int
) -> None:
    judge, wrong = await fuzz(tmp_path, inputs=2000, seed=seed, deep=10, converted=200)
    assert wrong == 0
    assert judge.verdicts["probe: taken"] > 500
    assert judge.verdicts["reference: taken"] > 50


async def test_every_sample_is_sound_and_no_seed_makes_other_inputs_twice() -> None:
    for name, content in samples().items():
        assert (opened_as(content) is None) == name.startswith("stranger"), name
    first, again = (Mutator(samples(), seed=5) for _ in range(2))
    assert [first.case() for _ in range(300)] == [again.case() for _ in range(300)]


async def test_an_upload_of_a_mutated_image_is_taken_or_refused_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    mutator = Mutator(samples(), seed=21)
    taken = 0
    async with running_server(tmp_path, with_worker=False) as server:
        for _ in range(150):
            case = mutator.case()
            reply = await server.submit_form(("image", case.content, "../photo.html"))
            if reply.status == 202:
                taken += 1
            else:
                status, code, param = reply.refusal
                assert (status, code) in REFUSALS, case.recipe
                reply.assert_refused(status, code, param)
            assert len(server.stored_files()) == taken, case.recipe
    assert 40 < taken < 140


async def test_an_image_that_is_a_page_too_is_never_served_as_one(tmp_path: Path) -> None:
    mutator = Mutator(samples(), seed=31)
    pages = [case for case in (mutator.case() for _ in range(600)) if case.scripted][:12]
    async with running_server(tmp_path, with_worker=False) as server:
        for page in pages:
            await _served_as_an_image(server, page.content)


async def _served_as_an_image(server: Server, content: bytes) -> None:
    assert SCRIPT in content
    accepted = await server.submit_form(("image", content, "page.html"))
    assert accepted.status == 202, accepted.body
    task = await server.task(accepted.json["task_id"])
    (url,) = task["request"]["image_input"]
    served = await server.anonymous("GET", url.removeprefix(server.url))
    assert served.status == 200
    kind = served.headers["Content-Type"]
    assert kind in IMAGES
    assert served.headers["X-Content-Type-Options"] == "nosniff"
    policy = served.headers["Content-Security-Policy"]
    assert policy == "default-src 'none'; frame-ancestors 'none'; sandbox"
    ending = kind.removeprefix("image/").replace("jpeg", "jpg")
    named = served.headers["Content-Disposition"]
    assert named.startswith('inline; filename="asset_')
    assert named.endswith(f'.{ending}"')
