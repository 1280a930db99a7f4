"""What agents do, over HTTP and over stdio, with the SDK's own client."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from mcp import MCPError
from PIL import Image

from agents import (
    Door,
    agent,
    agent_of_2025,
    local_agent,
    pictures,
    refusal,
    said,
    told,
)
from harness import Server, noise, picture, running_server
from imaging.samples import cleaned

MODEL = "gpt-image-2"
JPEG = {"model": "nano-banana-pro", "parameters": {"output_format": "jpg"}}
"""A picture small enough to be part of an answer as it is."""
UNKNOWN = "ck_" + "x" * 43


@pytest.fixture(params=[agent, agent_of_2025, local_agent], ids=["http", "http-2025", "stdio"])
def door(request: pytest.FixtureRequest) -> Door:
    found: Door = request.param
    return found


def data_uri(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


async def downloaded(server: Server, url: str) -> bytes:
    async with server.http.get(url) as response:
        assert response.status == 200
        return await response.read()


# Looking around


async def test_an_agent_finds_tools_that_say_what_they_take_and_what_they_do(
    idle_server: Server, door: Door
) -> None:
    async with door(idle_server.url, idle_server.key) as client:
        assert "generate_image" in (client.instructions or "")
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == [
        "list_models",
        "generate_image",
        "edit_image",
        "get_task",
        "cancel_task",
        "list_tasks",
    ]
    for tool in tools.values():
        assert tool.description
        assert tool.output_schema is not None
        assert tool.input_schema["additionalProperties"] is False
        for field in tool.input_schema["properties"].values():
            assert field["description"]
    hints = {name: tool.annotations for name, tool in tools.items()}
    assert {name for name, hint in hints.items() if hint and hint.read_only_hint} == {
        "list_models",
        "get_task",
        "list_tasks",
    }
    assert {name for name, hint in hints.items() if hint and hint.destructive_hint} == {
        "cancel_task"
    }
    for name in ("generate_image", "edit_image"):
        hint = hints[name]
        assert hint is not None
        assert hint.idempotent_hint is False
        assert "new purchase" in (tools[name].description or "")


async def test_only_an_agent_on_this_machine_is_offered_its_files(idle_server: Server) -> None:
    offered = []
    for way in (agent, local_agent):
        async with way(idle_server.url, idle_server.key) as client:
            (edit,) = [
                tool for tool in (await client.list_tools()).tools if tool.name == "edit_image"
            ]
            offered.append("path" in edit.input_schema["properties"]["references"]["description"])
    assert offered == [False, True]


async def test_the_models_are_told_with_prices_and_allowed_values(
    idle_server: Server, door: Door
) -> None:
    reply = await idle_server.call("GET", "/v1/models")
    async with door(idle_server.url, idle_server.key) as client:
        models = told(await client.call_tool("list_models"))["models"]
        (whole,) = told(await client.call_tool("list_models", {"model": MODEL}))["models"]
    assert [model["id"] for model in models] == [model["id"] for model in reply.json["data"]]
    (brief,) = [model for model in models if model["id"] == MODEL]
    assert brief["parameters"]["aspect_ratio"]["enum"][0] == "auto"
    assert brief["parameters"]["resolution"]["depends_on"]
    assert brief["prices"][0]["micro_usdc"] > 0
    assert (brief["max_references"], brief["max_n"]) == (16, 1)
    assert brief.items() <= whole.items()
    assert whole["description"]


# Making images


async def test_a_small_image_comes_whole_with_its_url(server: Server, door: Door) -> None:
    async with door(server.url, server.key) as client:
        result = await client.call_tool("generate_image", {"prompt": "a lighthouse", **JPEG})
    task, (shown,) = told(result), pictures(result)
    assert (task["state"], task["progress"], task["prompt"]) == ("success", 100, "a lighthouse")
    (image,) = task["images"]
    assert image["url"].startswith(f"{server.url}/v1/assets/")
    assert image["url"] in said(result)
    assert task["task_id"] in said(result)
    assert shown.mime_type == image["content_type"] == "image/jpeg"
    assert base64.b64decode(shown.data) == await downloaded(server, image["url"])
    kept = await server.task(task["task_id"])
    assert task["charged_micro_usdc"] == kept["billing"]["actual_amount_micro_usdc"] > 0


async def test_of_a_large_image_a_smaller_copy_is_shown(server: Server) -> None:
    asked = {"prompt": "x", "model": "nano-banana-pro", "parameters": {"resolution": "4K"}}
    async with agent(server.url, server.key) as client:
        result = await client.call_tool("generate_image", asked)
    (image,), (shown,) = told(result)["images"], pictures(result)
    assert (image["width"], image["height"]) == (4096, 4096)
    assert len(shown.data) < 1024 * 1024
    with Image.open(BytesIO(base64.b64decode(shown.data))) as copy:
        assert (copy.format, copy.size) == ("JPEG", (1024, 1024))
    assert "a JPEG copy of 1024x1024" in said(result)
    with Image.open(BytesIO(await downloaded(server, image["url"]))) as original:
        assert original.size == (4096, 4096)


async def test_what_takes_longer_is_fetched_by_its_task_id(server: Server, door: Door) -> None:
    asked = {"prompt": "sandbox:delay=1", "wait_seconds": 0, **JPEG}
    async with door(server.url, server.key) as client:
        first = await client.call_tool("generate_image", asked)
        task_id = told(first)["task_id"]
        assert told(first)["state"] in {"waiting", "queuing", "generating"}
        assert pictures(first) == []
        assert "get_task" in said(first)
        then = await client.call_tool("get_task", {"task_id": task_id})
    assert (told(then)["task_id"], told(then)["state"]) == (task_id, "success")
    assert len(pictures(then)) == 1


async def test_progress_is_reported_while_an_agent_waits(tmp_path: Path, door: Door) -> None:
    reported: list[tuple[float, float | None, str | None]] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reported.append((progress, total, message))

    async with (
        running_server(tmp_path, sandbox_seconds=3.5) as server,
        door(server.url, server.key) as client,
    ):
        result = await client.call_tool(
            "generate_image", {"prompt": "x", **JPEG}, progress_callback=report
        )
        task_id = told(result)["task_id"]
    percents = [progress for progress, _, _ in reported]
    assert len(percents) >= 2
    assert percents == sorted(set(percents))
    assert {total for _, total, _ in reported} == {100}
    assert all((message or "").startswith(f"{task_id} is ") for _, _, message in reported)


async def test_a_repeated_call_buys_again_unless_it_has_a_key(server: Server) -> None:
    async with agent(server.url, server.key) as client:

        async def ordered(**more: str) -> str:
            asked = {"prompt": "x", "wait_seconds": 0, **JPEG, **more}
            task_id = told(await client.call_tool("generate_image", asked))["task_id"]
            assert isinstance(task_id, str)
            return task_id

        assert await ordered() != await ordered()
        assert await ordered(idempotency_key="one") == await ordered(idempotency_key="one")
        changed = {"prompt": "y", "idempotency_key": "one", **JPEG}
        conflict = await client.call_tool("generate_image", changed)
    assert "idempotency_conflict" in refusal(conflict)


# References


async def test_an_image_is_edited_by_task_url_and_data(server: Server, door: Door) -> None:
    async with door(server.url, server.key) as client:
        first = told(await client.call_tool("generate_image", {"prompt": "x", **JPEG}))
        references = [
            first["task_id"],
            first["images"][0]["url"],
            data_uri(picture(colour="red")),
        ]
        asked = {"prompt": "in winter", "references": references, **JPEG}
        result = await client.call_tool("edit_image", asked)
    assert len(pictures(result)) == 1
    task = await server.task(told(result)["task_id"])
    sent = [await downloaded(server, url) for url in task["request"]["image_input"]]
    original = await downloaded(server, first["images"][0]["url"])
    unsaid, _ = cleaned(original)  # a reference does not say where it comes from
    assert sent == [unsaid, unsaid, picture(colour="red")]


async def test_a_public_url_is_left_for_the_server_to_fetch(idle_server: Server) -> None:
    url = "https://example.com/reference.png"
    asked = {"prompt": "x", "model": MODEL, "references": [url], "wait_seconds": 0}
    async with agent(idle_server.url, idle_server.key) as client:
        task = told(await client.call_tool("edit_image", asked))
    assert (await idle_server.task(task["task_id"]))["request"]["image_input"] == [url]


async def test_an_agent_on_this_machine_edits_its_files(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "a reference.png"
    file.write_bytes(picture(colour="red"))
    asked = {"prompt": "x", "references": [str(file), file.as_uri()], **JPEG}
    async with local_agent(server.url, server.key) as client:
        task = told(await client.call_tool("edit_image", asked))
    sent = (await server.task(task["task_id"]))["request"]["image_input"]
    assert [await downloaded(server, url) for url in sent] == [picture(colour="red")] * 2


async def test_no_other_file_of_this_machine_is_sent(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_text("the words that nobody may know")
    async with local_agent(server.url, server.key) as client:
        for path, why in [(secret, "is no PNG"), (tmp_path / "none", "cannot be read")]:
            asked = {"prompt": "x", "model": MODEL, "references": [str(path)]}
            assert why in refusal(await client.call_tool("edit_image", asked))
    assert (await server.balance())["reserved_micro_usdc"] == 0


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("/etc/hostname", "http(s) URL"),
        ("data:image/png;base64,%%%", "base64"),
        ("data:image/png,plain", "data:image/png;base64,"),
        ("task_0000000000000", "task_not_found"),
        ("http://127.0.0.1/private.png", "public"),
        (data_uri(b"no image at all"), "unsupported_reference_type"),
    ],
)
async def test_a_reference_that_cannot_be_had_is_refused_in_words(
    idle_server: Server, reference: str, why: str
) -> None:
    asked = {"prompt": "x", "model": MODEL, "references": [reference]}
    async with agent(idle_server.url, idle_server.key) as client:
        assert why in refusal(await client.call_tool("edit_image", asked))


@pytest.mark.parametrize(
    ("model", "number", "why"),
    [
        ("nano-banana-pro", 9, "nano-banana-pro takes at most 8 references, and not 9."),
        ("ideogram-v4", 1, "ideogram-v4 takes no references, and not 1."),
        (MODEL, 17, "length <= 16"),
    ],
)
async def test_too_many_references_are_refused_before_any_is_fetched(
    idle_server: Server, model: str, number: int, why: str
) -> None:
    asked = {"prompt": "x", "model": model, "references": ["task_0000000000000"] * number}
    async with agent(idle_server.url, idle_server.key) as client:
        assert why in refusal(await client.call_tool("edit_image", asked))


async def test_references_leave_no_files_behind(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    async with agent(server.url, server.key) as client:
        first = told(await client.call_tool("generate_image", {"prompt": "x", **JPEG}))
        uris = [data_uri(picture()), data_uri(noise())]
        asked = {
            "prompt": "x",
            "references": [first["task_id"], *uris],
            "model": MODEL,
        }

        async def look(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 -- as the SDK calls it
            assert list(folder.iterdir()) == []

        second = told(await client.call_tool("edit_image", asked, progress_callback=look))
    assert second["state"] == "success"
    assert list(folder.iterdir()) == []


async def test_a_task_without_an_image_is_no_reference(idle_server: Server) -> None:
    task = await idle_server.accepted()
    asked = {"prompt": "x", "model": MODEL, "references": [task["task_id"]]}
    async with agent(idle_server.url, idle_server.key) as client:
        assert "has no image" in refusal(await client.call_tool("edit_image", asked))


# What goes wrong


async def test_a_failing_task_is_an_error_that_says_why(server: Server, door: Door) -> None:
    async with door(server.url, server.key) as client:
        asked = {"prompt": "sandbox:refuse", "model": MODEL}
        result = await client.call_tool("generate_image", asked)
    text = refusal(result)
    assert "content_policy_violation" in text
    assert "Nothing was charged." in text
    task: Any = result.structured_content
    assert (task["state"], task["charged_micro_usdc"]) == ("fail", 0)
    assert task["error"]["retryable"] is False


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"prompt": "x", "model": "no-such-model"}, "unknown_model"),
        ({"prompt": "  ", "model": MODEL}, "missing_field"),
        ({"prompt": "x", "model": MODEL, "n": 2}, "field n"),
        ({"prompt": "x", "model": MODEL, "parameters": {"resolution": "8K"}}, "1K"),
        ({"prompt": "x", "model": MODEL, "parameters": {"seed": 1}}, "unsupported_parameter"),
        ({"prompt": "x", "model": MODEL, "parameters": {"prompt": "y"}}, "parameters.prompt"),
        ({"prompt": "x", "model": MODEL, "parameters": {"image_input": "y"}}, "references"),
        ({"prompt": "x", "model": MODEL, "parameters": {"seed": [1]}}, "$.parameters"),
        ({"prompt": "x"}, "`model`"),
        ({"prompt": 1, "model": MODEL}, "$.prompt"),
        ({"prompt": "x", "model": MODEL, "wait_seconds": 601}, "<= 600"),
        ({"prompt": "x", "model": MODEL, "size": "1K"}, "`size`"),
        ({"prompt": "x", "model": MODEL, "idempotency_key": "clé"}, "matching regex '^[ -~]+$'"),
    ],
    ids=str,
)
async def test_a_wrong_request_is_refused_with_what_would_be_right(
    idle_server: Server, asked: dict[str, Any], why: str
) -> None:
    async with agent(idle_server.url, idle_server.key) as client:
        assert why in refusal(await client.call_tool("generate_image", asked))


async def test_an_account_without_credit_is_told_so(idle_server: Server) -> None:
    poor = await idle_server.for_account(credit=0)
    async with agent(poor.url, poor.key) as client:
        result = await client.call_tool("generate_image", {"prompt": "x", "model": MODEL})
    assert "insufficient_balance" in refusal(result)


async def test_there_is_no_other_tool(idle_server: Server, door: Door) -> None:
    async with door(idle_server.url, idle_server.key) as client:
        with pytest.raises(MCPError, match="only list_models"):
            await client.call_tool("format_disk", {})


async def test_a_key_that_is_good_for_nothing_is_refused_without_being_repeated(
    idle_server: Server,
) -> None:
    async with local_agent(idle_server.url, UNKNOWN) as client:
        text = refusal(await client.call_tool("get_task", {"task_id": "task_0000000000000"}))
    assert "invalid_api_key" in text
    assert UNKNOWN not in text


async def test_a_server_that_is_not_there_is_told_in_words() -> None:
    async with local_agent("http://127.0.0.1:9", UNKNOWN) as client:
        text = refusal(await client.call_tool("list_models"))
    assert "no server at http://127.0.0.1:9" in text


# Each its own


async def test_agents_with_other_keys_see_nothing_of_one_anothers_tasks(server: Server) -> None:
    other = await server.for_account()
    async with agent(server.url, server.key) as mine, agent(other.url, other.key) as theirs:
        task = told(await mine.call_tool("generate_image", {"prompt": "x", **JPEG}))
        asked = {"task_id": task["task_id"]}
        assert told(await mine.call_tool("get_task", asked))["state"] == "success"
        assert "task_not_found" in refusal(await theirs.call_tool("get_task", asked))
        edit = {"prompt": "x", "references": [task["task_id"]], **JPEG}
        assert "task_not_found" in refusal(await theirs.call_tool("edit_image", edit))
    assert (await other.balance())["balance_micro_usdc"] == 1_000_000_000


async def test_an_agent_is_told_that_images_were_deleted(server: Server, door: Door) -> None:
    task = await server.outcome()
    path, task_id = f"/v1/tasks/{task['task_id']}", task["task_id"]
    assert (await server.call("DELETE", path)).status == 204
    async with door(server.url, server.key) as client:
        result = await client.call_tool("get_task", {"task_id": task_id})
        assert "images" not in told(result)
        assert "were deleted" in said(result)
        assert pictures(result) == []
        edit = {"model": MODEL, "prompt": "x", "references": [task_id]}
        text = refusal(await client.call_tool("edit_image", edit))
        assert f"{task_id} has no image, or none any more" in text
