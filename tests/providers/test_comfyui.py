"""What goes out to ComfyUI, and what does not: workflow templates and their slots."""

import json
import re
from pathlib import Path
from typing import Final

import msgspec
import pytest

import calotype.catalog
from calotype.domain.channel import Channel, Served
from calotype.domain.outcomes import (
    Accepted,
    Fault,
    Refused,
    TryLater,
)
from calotype.providers.comfyui.workflow import WorkflowFault, load_workflow
from calotype.providers.port import Job
from providers.bed import PROMPT, Bed, protocols, reference
from providers.fakes.base import Fake
from providers.fakes.exchange import Reply
from providers.protocol import Example, Protocol

SHIPPED: Final = Path(calotype.catalog.__file__).parent / "upstreams" / "comfyui"
OURS: Final = Path(__file__).parent / "workflows"
WORDS: Final = protocols()["comfyui"].examples[0]
PICTURES: Final = protocols()["comfyui"].examples[2]


@pytest.fixture
def protocol() -> Protocol:
    return protocols()["comfyui"]


def shipped(bed: Bed, fake: Fake, example: Example) -> Channel:
    """A channel whose workflows are those that come with Calotype."""
    return msgspec.structs.replace(bed.channel(fake, example), options={})


def saying(job: Job, prompt: str, **fields: object) -> Job:
    request = msgspec.structs.replace(job.request, prompt=prompt)
    return msgspec.structs.replace(job, request=request, fields={**job.fields, **fields})


# What goes out


async def test_the_shipped_workflow_for_words_is_sent_with_all_that_a_request_says(
    bed: Bed,
) -> None:
    example = Example(
        model="flux-2-flex",
        served=Served(id="text-to-image/sdxl.safetensors"),
        parameters={"aspect_ratio": "4:3", "seed": 3, "steps": 9, "guidance": 2.5},
        reads_model="",
        reads={},
    )
    job = saying(bed.job(example), PROMPT, negative="rain")
    async with bed.fake() as fake:
        accepted = await bed.provider(shipped(bed, fake, example)).submit(job)
    assert accepted == Accepted(f"{job.reference} 9", 1.0)
    (order,) = fake.bought
    assert order.call.path == "/prompt"
    body = order.call.document
    assert re.fullmatch(r"[0-9a-f]{32}", body["client_id"])
    graph = json.loads((SHIPPED / "text-to-image.json").read_bytes())
    graph["3"]["inputs"] |= {"seed": 3, "steps": 9, "cfg": 2.5}
    graph["4"]["inputs"]["ckpt_name"] = "sdxl.safetensors"
    graph["5"]["inputs"] |= {"width": 1152, "height": 864, "batch_size": 1}
    graph["6"]["inputs"]["text"] = PROMPT
    graph["7"]["inputs"]["text"] = "rain"
    assert body == {"prompt": graph, "client_id": body["client_id"], "prompt_id": job.reference}


async def test_the_shipped_workflow_for_a_reference_loads_it_under_a_name_of_ours(
    bed: Bed,
) -> None:
    example = Example(
        model="flux-2-klein-4b",
        served=Served(id="text-to-image", edit="image-to-image"),
        parameters={"aspect_ratio": "1:1"},
        references=1,
        reads_model="",
        reads={},
    )
    job = bed.job(example)
    async with bed.fake() as fake:
        provider = bed.provider(shipped(bed, fake, example))
        assert isinstance(await provider.submit(job), Accepted)
        (order,) = fake.bought
        assert fake.understand(order.call).references == (reference(0),)
    (upload,) = fake.calls_to("POST", "/upload/image")
    name = f"{job.reference}-1.png"
    parts = [(part.name, part.filename, part.content_type) for part in upload.parts]
    assert parts[0] == ("image", name, "image/png")
    texts = {part.name: part.text for part in upload.parts[1:]}
    assert texts == {"type": "input", "subfolder": "calotype", "overwrite": "true"}
    graph = order.call.document["prompt"]
    assert graph["10"]["inputs"]["image"] == f"calotype/{name}"
    assert (graph["11"]["inputs"]["width"], graph["11"]["inputs"]["height"]) == (1024, 1024)


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.json")))
def test_every_shipped_workflow_is_in_order(name: str) -> None:
    workflow = load_workflow(SHIPPED, name, references=0)
    assert workflow.slots.description
    assert workflow.graph[workflow.slots.save]["class_type"] == "SaveImage"


async def test_without_a_seed_each_purchase_has_one_of_its_own(bed: Bed) -> None:
    words = msgspec.structs.replace(WORDS, parameters={})
    references = ["0b7e4dd6-3f3a-4b0e-9d0c-0f3c7f6f8a11", "7d1f3bd5-8f0e-4c9b-9a53-5d0c1f6f8a22"]
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake, words))
        seeds = []
        for each in [*references, references[0]]:
            await provider.submit(bed.job(words, reference=each))
            seeds.append(fake.calls_to("POST", "/prompt")[-1].document["prompt"]["57:3"])
    drawn = [node["inputs"]["seed"] for node in seeds]
    assert drawn[0] == drawn[2] != drawn[1]
    assert all(0 <= seed < 2**31 for seed in drawn)


@pytest.mark.parametrize(
    "prompt",
    ['["4", 0]', "../../etc/passwd", '"}}, "3": {"class_type": "Evil"', "4.ckpt_name", "%date%"],
)
async def test_what_a_client_says_goes_into_its_slot_and_nowhere_else(
    bed: Bed, prompt: str
) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake, WORDS))
        await provider.submit(saying(bed.job(WORDS), prompt, negative=prompt))
        await provider.submit(saying(bed.job(WORDS), "plain", negative="plain"))
    odd, plain = (call.document["prompt"] for call in fake.calls_to("POST", "/prompt"))
    for node, field in (("57:6", "text"), ("7", "text")):
        assert odd[node]["inputs"].pop(field) == prompt
        plain[node]["inputs"].pop(field)
    assert odd == plain


async def test_a_batch_goes_into_its_slot(bed: Bed) -> None:
    job = bed.job(WORDS)
    job = msgspec.structs.replace(job, request=msgspec.structs.replace(job.request, n=3))
    async with bed.fake() as fake:
        await bed.provider(bed.channel(fake, WORDS)).submit(job)
    assert fake.understand(fake.bought[0].call).fields["batch"] == 3


# What is not sent


@pytest.mark.parametrize(
    ("example", "fields", "reason"),
    [
        (WORDS, {"guidance": 3.5}, "no slot for guidance"),
        (PICTURES, {"negative": "rain"}, "no slot for negative"),
        (WORDS, {"slots": "x"}, "no slot for slots"),
        (WORDS, {"images": "x"}, "no slot for images"),
    ],
)
async def test_what_a_workflow_has_no_slot_for_is_refused_and_not_dropped(
    bed: Bed, example: Example, fields: dict[str, object], reason: str
) -> None:
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake, example))
        outcome = await provider.submit(saying(bed.job(example), PROMPT, **fields))
    assert isinstance(outcome, Refused)
    assert (outcome.fault, outcome.code) == (Fault.UNFIT, "upstream_rejected")
    assert reason in outcome.detail
    assert fake.calls == []


@pytest.mark.parametrize(
    ("served", "references", "reason"),
    [
        ("words", 1, "takes 0 references, not 1"),
        ("words/x.safetensors", 3, "words@3"),
        ("picture", 1, "there is no picture.json"),
        ("picture@2", 1, "takes 2 references, not 1"),
    ],
)
async def test_a_workflow_takes_as_many_references_as_it_loads(
    bed: Bed, served: str, references: int, reason: str
) -> None:
    example = msgspec.structs.replace(
        PICTURES, served=Served(id=served), references=references, parameters={}
    )
    async with bed.fake() as fake:
        outcome = await bed.provider(bed.channel(fake, example)).submit(bed.job(example))
    assert isinstance(outcome, Refused)
    assert reason in f"{outcome.message} {outcome.detail}"
    assert fake.calls == []


async def test_a_missing_workflow_is_for_the_operator_to_know(bed: Bed) -> None:
    nameless = msgspec.structs.replace(WORDS, served=None)
    async with bed.fake() as fake:
        provider = bed.provider(bed.channel(fake, nameless))
        for upstream_model in ("", "flux-2-klein-4b"):  # it is named as the model then
            outcome = await provider.submit(bed.job(nameless, upstream_model=upstream_model))
            assert isinstance(outcome, Refused)
            assert (outcome.fault, outcome.code) == (Fault.MODEL, "upstream_unavailable")
            assert "flux-2-klein-4b.json" in outcome.detail
            assert "flux" not in outcome.message
    assert fake.calls == []


GRAPH: Final = {"6": {"class_type": "T", "inputs": {"text": "", "clip": ["4", 1]}}}
SLOTS: Final = 'prompt = "6.text"\nsave = "6"\n'


@pytest.mark.parametrize(
    ("graph", "slots", "reason"),
    [
        ("{", SLOTS, "cannot be read"),
        (GRAPH, "prompt = ", "cannot be read"),
        (GRAPH, 'save = "6"', "prompt"),
        (GRAPH, SLOTS + 'noise = "6.text"', "noise"),
        (GRAPH, SLOTS + "steps = 7", "steps"),
        (GRAPH, SLOTS.replace('"6"', '"9"'), "no node 9"),
        (GRAPH, SLOTS.replace("6.text", "6.words"), "no input 6.words"),
        (GRAPH, SLOTS.replace("6.text", "text"), "no input text"),
        (GRAPH, SLOTS.replace("6.text", "6.clip"), "linked to another node"),
        (GRAPH, SLOTS.replace('"6.text"', "[]"), "say which input takes the prompt"),
        (GRAPH, SLOTS + 'images = ["8.image"]', "no input 8.image"),
        ({"nodes": [], "links": []}, SLOTS, "Export (API)"),
        ([], SLOTS, "Export (API)"),
        ({"6": {"inputs": []}}, SLOTS, "Export (API)"),
    ],
)
def test_a_workflow_that_is_not_in_order_says_why(
    tmp_path: Path, graph: object, slots: str, reason: str
) -> None:
    (tmp_path / "x.json").write_text(graph if isinstance(graph, str) else json.dumps(graph))
    (tmp_path / "x.toml").write_text(slots)
    with pytest.raises(WorkflowFault, match=re.escape(reason)):
        load_workflow(tmp_path, "x", references=0)


@pytest.mark.parametrize("name", ["", "..", "../words", "a/b", "/etc/passwd"])
def test_a_workflow_lies_in_its_folder(name: str) -> None:
    with pytest.raises(WorkflowFault):
        load_workflow(OURS, name, references=0)


def test_a_workflow_without_its_slots_says_which_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(WorkflowFault, match=r"no x\.toml"):
        load_workflow(tmp_path, "x", references=0)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Reply(500, {"error": "disk full"}), TryLater),
        (Reply(200, {"subfolder": "x"}), TryLater),
        (Reply(413, {"error": "too large"}), Refused),
        (Reply(401, {"error": "Unauthorized"}), Refused),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
async def test_a_reference_that_cannot_be_uploaded_leaves_nothing_bought(
    bed: Bed, answer: Reply, kind: type
) -> None:
    async with bed.fake() as fake:
        fake.tamper = lambda _: answer
        outcome = await bed.provider(bed.channel(fake, PICTURES)).submit(bed.job(PICTURES))
    assert isinstance(outcome, kind), outcome
    assert (fake.sends, len(fake.calls_to("POST", "/upload/image"))) == (0, 1)
