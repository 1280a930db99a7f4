"""Files over HTTP, with either database: uploaded once, named by many tasks, gone when deleted."""

import asyncio
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.domain.files import named_asset, reference_of
from calotype.domain.ids import decode, encode
from calotype.domain.limits import DAY_MS
from calotype.domain.task import Asset
from calotype.store.files import NewFile
from harness import BOUNDARY, FORM, Part, Reply, Server, form, picture, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
PNG = {"Content-Type": "image/png"}
FILES = "/v1/files"


async def upload(server: Server, image: bytes = b"", **options: Any) -> Reply:
    options = {"data": image or picture(), "headers": PNG, **options}
    return await server.call("POST", FILES, **options)


async def upload_form(server: Server, *parts: Part) -> Reply:
    return await server.call("POST", FILES, data=form(*parts), headers=FORM)


async def uploaded(server: Server, image: bytes = b"") -> dict[str, Any]:
    reply = await upload(server, image)
    assert reply.status == 201, reply.body
    document: dict[str, Any] = reply.json
    return document


async def expired(server: Server) -> str:
    """The id of a file that expired, and is still stored."""
    owner = await server.core.accounts.find(server.account)
    assert owner is not None
    asset = Asset(server.core.ids.next(), owner.id, "references/x.png", "image/png", 9, 3, 3, 1)
    await server.core.store.files.add(NewFile(asset, b"old", 1), now=1)
    return encode("asset", asset.id)


async def shown(server: Server, reply: Reply) -> list[str]:
    assert reply.status == 202, reply.body
    task = await server.task(reply.json["task_id"])
    references: list[str] = task["request"]["image_input"]
    return references


async def test_an_upload_is_a_file_that_its_owner_sees(idle: Server) -> None:
    image = picture(size=(40, 30))
    reply = await upload(idle, image)
    file = reply.json
    assert reply.status == 201
    assert reply.headers["Location"] == f"/v1/files/{file['id']}"
    known = ("id", "reference", "created_at", "expires_at", "url")
    facts = {name: value for name, value in file.items() if name not in known}
    assert facts == {
        "object": "file",
        "content_type": "image/png",
        "width": 40,
        "height": 30,
        "bytes": file["bytes"],
    }
    assert file["reference"] == f"asset://{file['id']}"
    kept = file["expires_at"] - file["created_at"]
    assert 0 <= kept - 2 * DAY_MS // 1000 < 60, "from when it was written down"
    stored = await idle.anonymous("GET", file["url"].removeprefix(idle.url))
    assert (stored.status, len(stored.body)) == (200, file["bytes"])
    again = await idle.call("GET", f"{FILES}/{file['id']}")
    assert (again.status, again.json) == (200, file)
    assert again.headers["Cache-Control"] == "no-store"


async def test_an_account_without_credit_uploads_no_file(idle: Server) -> None:
    poor = await idle.for_account(credit=0)
    before = idle.stored_files()
    (await upload(poor)).assert_refused(402, "insufficient_balance")
    assert idle.stored_files() == before


@pytest.mark.parametrize("name", ["file", "image"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_a_form_holds_the_file_under_either_name(idle: Server, name: str, kind: str) -> None:
    reply = await upload_form(idle, (name, picture(kind), "a"))
    assert (reply.status, reply.json["content_type"]) == (201, f"image/{kind.lower()}")


async def test_the_same_bytes_again_give_the_same_file_and_are_stored_once(idle: Server) -> None:
    image = picture(colour="red")
    first = await upload_form(idle, ("file", image, "a.png"))
    before = idle.stored_files()
    again = await upload(idle, image, headers={"Content-Type": "application/octet-stream"})
    assert (first.status, again.status) == (201, 200)
    assert again.json["id"] == first.json["id"]
    assert idle.stored_files() == before
    other = await idle.for_account()
    assert (await uploaded(other, image))["id"] != first.json["id"]


async def test_two_uploads_of_the_same_bytes_at_once_make_one_file(idle: Server) -> None:
    replies = await asyncio.gather(*[upload(idle, picture(colour="blue")) for _ in range(6)])
    assert sorted(reply.status for reply in replies) == [200] * 5 + [201]
    assert len({reply.json["id"] for reply in replies}) == 1
    listed = (await idle.call("GET", FILES)).json["data"]
    assert [file["id"] for file in listed] == [replies[0].json["id"]]


async def test_a_file_whose_bytes_were_lost_is_made_anew(idle: Server) -> None:
    image = picture(colour="gold")
    lost = await uploaded(idle, image)
    for path in idle.stored_files():
        if lost["id"] in path.name:
            path.unlink()
    assert (await uploaded(idle, image))["id"] != lost["id"]


async def test_files_are_listed_newest_first_in_pages(idle: Server) -> None:
    made = [(await uploaded(idle, picture(size=(9, 9 + each))))["id"] for each in range(5)]
    await idle.submit_form(("image", picture(), "a.png"))
    first = (await idle.call("GET", f"{FILES}?limit=3")).json
    assert first["has_more"]
    rest = (await idle.call("GET", f"{FILES}?limit=3&cursor={first['next_cursor']}")).json
    assert (rest["has_more"], rest["next_cursor"]) == (False, None)
    assert [file["id"] for file in first["data"] + rest["data"]] == made[::-1]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_parameter"),
        ("limit=x", "invalid_parameter"),
        ("cursor=asset_0000000000000", "invalid_parameter"),
        ("limit=1&limit=1", "invalid_parameter"),
        ("state=success", "unsupported_parameter"),
        ("metadata.a=b", "unsupported_parameter"),
    ],
)
async def test_a_list_takes_the_parameters_of_pages_alone(
    idle: Server, query: str, code: str
) -> None:
    reply = await idle.call("GET", f"{FILES}?{query}")
    reply.assert_refused(400, code, query.partition("=")[0])


async def test_a_deleted_file_is_gone_at_once(idle: Server) -> None:
    file = await uploaded(idle)
    path = f"{FILES}/{file['id']}"
    reply = await idle.call("DELETE", path, data=b"means nothing")
    assert (reply.status, reply.body) == (204, b"")
    for method in ("GET", "DELETE"):
        (await idle.call(method, path)).assert_refused(404, "file_not_found")
    gone = await idle.anonymous("GET", file["url"].removeprefix(idle.url))
    gone.assert_refused(404, "asset_not_found")
    assert not [path for path in idle.stored_files() if file["id"] in path.name]
    (await idle.submit(image_input=[file["reference"]])).assert_refused(
        400, "invalid_parameter", "image_input"
    )
    assert (await upload(idle)).status == 201


async def test_nobody_sees_deletes_or_uses_another_accounts_file(idle: Server) -> None:
    file, other = await uploaded(idle), await idle.for_account()
    for method in ("GET", "DELETE"):
        reply = await other.call(method, f"{FILES}/{file['id']}")
        reply.assert_refused(404, "file_not_found")
    assert (await other.call("GET", FILES)).json["data"] == []
    refused = await other.submit(image_input=[file["reference"]])
    refused.assert_refused(400, "invalid_parameter", "image_input")
    assert (await idle.call("GET", f"{FILES}/{file['id']}")).status == 200


@pytest.mark.parametrize(
    "word", ["asset_0000000000000", "asset_", "task_0000000000000", "é", "a.b"]
)
async def test_an_id_that_names_no_file_is_told_so(idle: Server, word: str) -> None:
    for method in ("GET", "DELETE"):
        (await idle.call(method, f"{FILES}/{word}")).assert_refused(404, "file_not_found")


async def test_a_file_that_expired_is_there_for_nobody(idle: Server) -> None:
    word = await expired(idle)
    for method in ("GET", "DELETE"):
        (await idle.call(method, f"{FILES}/{word}")).assert_refused(404, "file_not_found")
    assert (await idle.call("GET", FILES)).json["data"] == []
    refused = await idle.submit(image_input=[f"asset://{word}"])
    assert "expired" in refused.assert_refused(400, "invalid_parameter", "image_input")


async def test_without_a_key_nothing_is_taken_or_shown(idle: Server) -> None:
    for method, path in (("POST", FILES), ("GET", FILES), ("GET", f"{FILES}/a")):
        reply = await idle.anonymous(method, path)
        reply.assert_refused(401, "missing_api_key")


class TestRefused:
    """What is no file is refused, and nothing of it stays."""

    @pytest.fixture(autouse=True)
    def _nothing_stays(self, idle: Server) -> Any:
        before = idle.stored_files()
        yield
        assert idle.stored_files() == before

    @pytest.mark.parametrize("name", ["file", "image"])
    async def test_two_files_in_a_form(self, idle: Server, name: str) -> None:
        reply = await upload_form(idle, ("file", picture(), "a"), (name, picture(), "b"))
        reply.assert_refused(400, "invalid_parameter", "file")

    async def test_a_form_without_a_file(self, idle: Server) -> None:
        (await upload_form(idle)).assert_refused(400, "missing_field", "file")

    async def test_a_file_input_that_was_left_empty(self, idle: Server) -> None:
        reply = await upload_form(idle, ("file", b"", ""))
        reply.assert_refused(400, "unsupported_reference_type", "file")

    @pytest.mark.parametrize("other", [("purpose", "vision"), ("other", b"x", "other.png")])
    async def test_anything_besides_the_file(self, idle: Server, other: Part) -> None:
        for parts in ([other, ("file", picture(), "a")], [("file", picture(), "a"), other]):
            (await upload_form(idle, *parts)).assert_refused(400, "unsupported_parameter")

    async def test_text_where_the_file_is_to_be(self, idle: Server) -> None:
        reply = await upload_form(idle, ("file", "https://example.com/a.png"))
        reply.assert_refused(400, "invalid_parameter", "file")

    @pytest.mark.parametrize("bytes_", [b"", b"x", b"<svg xmlns='a'/>" * 9, picture()[:-40]])
    async def test_what_is_no_image_or_no_whole_one(self, idle: Server, bytes_: bytes) -> None:
        reply = await idle.call("POST", FILES, data=bytes_, headers=PNG)
        reply.assert_refused(400, "unsupported_reference_type", "file")

    @pytest.mark.parametrize(
        "kind", ["", "application/json", "text/plain", "application/x-www-form-urlencoded"]
    )
    async def test_a_body_of_another_type(self, idle: Server, kind: str) -> None:
        reply = await idle.call("POST", FILES, data=picture(), headers={"Content-Type": kind})
        reply.assert_refused(415, "unsupported_media_type")

    async def test_more_bytes_than_any_model_takes(self, idle: Server) -> None:
        large = picture() + bytes(31 * MIB)
        for body, headers in ((large, PNG), (form(("file", large, "a.png")), FORM)):
            reply = await idle.call("POST", FILES, data=BytesIO(body), headers=headers)
            reply.assert_refused(413, "reference_too_large", "file")

    async def test_a_body_that_says_it_is_far_too_large_is_not_read(self, idle: Server) -> None:
        head = f"POST {FILES}\nContent-Type: image/png\nContent-Length: {40 * MIB}\n"
        reply = await idle.exchange(f"{head}Expect: 100-continue")
        reply.assert_refused(413, "body_too_large")

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("multipart/form-data", b"x"),
            (f"multipart/form-data; boundary={BOUNDARY}", b"x"),
            (
                f"multipart/form-data; boundary={BOUNDARY}",
                form(("file", picture(), "a"), end=False),
            ),
        ],
    )
    async def test_a_form_that_cannot_be_parsed(self, idle: Server, kind: str, body: bytes) -> None:
        reply = await idle.call("POST", FILES, data=body, headers={"Content-Type": kind})
        reply.assert_refused(400, "malformed_body")

    async def test_a_body_that_breaks_off(self, idle: Server) -> None:
        head = f"POST {FILES} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {idle.key}\r\n"
        head += "Content-Type: image/png\r\nContent-Length: 900\r\n\r\n"
        async with idle.connection() as (_, writer):
            writer.write(head.encode() + picture()[:60])
            await writer.drain()
        async with aiohttp.ClientSession() as other:  # what came later was read later
            assert (await other.get(f"{idle.url}/healthz")).status == 200
        while [path for path in idle.stored_files() if "staging" in str(path)]:
            await asyncio.sleep(0.01)


class TestNamed:
    """Files in the place of URLs."""

    @pytest.mark.parametrize("count", [1, 3])
    async def test_a_task_names_files_and_shows_them_as_they_were_named(
        self, idle: Server, count: int
    ) -> None:
        file = await uploaded(idle)
        named = [file["reference"], "https://example.com/a.png", file["reference"]][:count]
        by_json = await idle.submit(image_input=named)
        by_form = await idle.submit_form(*[("image_input", each) for each in named])
        assert await shown(idle, by_json) == await shown(idle, by_form) == named

    async def test_uploads_files_and_urls_go_together_in_their_order(self, idle: Server) -> None:
        file = await uploaded(idle)
        url = "https://example.com/a.png"
        reply = await idle.submit_form(
            ("image", picture(), "a.png"), ("image_input", file["reference"]), ("image_input", url)
        )
        upload, *others = await shown(idle, reply)
        assert upload.startswith(f"{idle.url}/v1/assets/")
        assert others == [file["reference"], url]

    async def test_a_batch_refuses_only_what_names_no_image(self, idle: Server) -> None:
        file = await uploaded(idle)
        plain = {"model": "gpt-image-2", "prompt": "a cat"}
        requests = [
            {**plain, "image_input": [reference]}
            for reference in (file["reference"], reference_of(7), "asset://x")
        ]
        reply = await idle.call(
            "POST", "/v1/images/generations/batch", json={"requests": [*requests, plain]}
        )
        data = reply.json["data"]
        assert [each.get("error", {}).get("code") for each in data] == [
            None,
            "invalid_parameter",
            "invalid_parameter",
            None,
        ]

    async def test_a_use_keeps_the_file_for_longer(self, idle: Server) -> None:
        file = await uploaded(idle)
        await shown(idle, await idle.submit(image_input=[file["reference"]]))
        used = (await idle.call("GET", f"{FILES}/{file['id']}")).json
        model = idle.core.catalog.get("gpt-image-2")
        least = model.deadline_seconds + model.grace_seconds
        assert used["expires_at"] >= file["expires_at"] + least

    async def test_files_count_against_the_models_limits(self, idle: Server) -> None:
        file = await uploaded(idle)
        most = idle.core.catalog.get("gpt-image-2").references.max_items
        reply = await idle.submit(image_input=[file["reference"]] * (most + 1))
        reply.assert_refused(400, "too_many_references", "image_input")
        reply = await idle.submit(model="ideogram-v4", image_input=[file["reference"]])
        reply.assert_refused(400, "unsupported_parameter", "image_input")

    async def test_a_file_that_the_model_does_not_take_is_refused(self, idle: Server) -> None:
        owner = await idle.core.accounts.find(idle.account)
        assert owner is not None
        for size, kind, refusal in (
            (99 * MIB, "image/png", (413, "reference_too_large")),
            (9, "image/gif", (400, "unsupported_reference_type")),
        ):
            asset = Asset(idle.core.ids.next(), owner.id, "x", kind, size, 3, 3, 1)
            new = NewFile(asset, kind.encode(), 2)
            await idle.core.store.files.add(new, now=idle.core.clock())
            reply = await idle.submit(image_input=[reference_of(asset.id)])
            reply.assert_refused(*refusal, "image_input")

    async def test_an_idempotency_key_stands_for_the_files_that_were_named(
        self, idle: Server
    ) -> None:
        file, other = await uploaded(idle), await uploaded(idle, picture("JPEG"))
        headers = {"Idempotency-Key": "a"}
        body = {"model": "gpt-image-2", "prompt": "a", "image_input": [file["reference"]]}
        path = "/v1/images/generations"
        first = await idle.call("POST", path, json=body, headers=headers)
        changed = {**body, "image_input": [other["reference"]]}
        (await idle.call("POST", path, json=changed, headers=headers)).assert_refused(
            409, "idempotency_conflict"
        )
        await idle.call("DELETE", f"{FILES}/{file['id']}")
        again = await idle.call("POST", path, json=body, headers=headers)
        assert (again.status, again.json["task_id"]) == (202, first.json["task_id"])

    @pytest.mark.parametrize(
        "word",
        ["asset://", "asset://x", "asset:///asset_0000000000000", "asset://asset_000000000000"],
    )
    async def test_what_begins_like_a_reference_and_is_none_is_refused(
        self, idle: Server, word: str
    ) -> None:
        message = (await idle.submit(image_input=[word])).assert_refused(
            400, "invalid_parameter", "image_input"
        )
        assert "asset://" in message

    @given(
        st.one_of(
            st.text().map("asset://".__add__),
            st.text(max_size=20).map("asset://asset_".__add__),
            st.from_regex(r"\A[aA]sset:[/\\]{0,3}[a-z_]{0,8}[0-9a-z]{0,14}[?#/. ]?\Z"),
        )
    )
    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    async def test_no_text_makes_it_break(self, idle: Server, word: str) -> None:
        try:
            encoded = msgspec.json.encode(
                {"model": "gpt-image-2", "prompt": "a", "image_input": [word]}
            )
        except UnicodeEncodeError:
            return
        reply = await idle.call(
            "POST",
            "/v1/images/generations",
            data=encoded,
            headers={"Content-Type": "application/json"},
        )
        reply.assert_refused(400, "invalid_parameter", "image_input")


@pytest.mark.parametrize("url", [None, 5, "", "https://a", "asset:asset_0000000000000", ["a"]])
async def test_only_asset_urls_name_images(url: object) -> None:
    assert named_asset(url) is None


async def test_the_scheme_may_be_in_any_case_and_is_shown_in_one(idle: Server) -> None:
    file = await uploaded(idle)
    reply = await idle.submit(image_input=[file["reference"].replace("asset://", "ASSET://")])
    assert await shown(idle, reply) == [file["reference"]]


class TestDeveloped:
    """Files in a server that works."""

    async def test_a_file_serves_many_tasks_and_a_result_the_next_one(self, tmp_path: Path) -> None:
        async with running_server(tmp_path) as server:
            file = await uploaded(server)
            named = [file["reference"]]
            tasks = [await server.outcome(image_input=named) for _ in range(2)]
            assert [task["state"] for task in tasks] == ["success"] * 2
            task = tasks[-1]
            name = task["result"]["data"][0]["url"].rpartition("/")[2].partition(".")[0]
            assert decode("asset", name) is not None
            stored = len(server.stored_files())
            again = await server.outcome(image_input=[f"asset://{name}"])
            assert again["state"] == "success", again["error"]
            assert len(server.stored_files()) == stored + 1
            reply = await server.call("DELETE", f"/v1/tasks/{again['task_id']}")
            assert reply.status == 204
            assert len(server.stored_files()) == stored
            assert (await server.call("GET", f"{FILES}/{file['id']}")).status == 200

    async def test_a_task_whose_file_is_deleted_before_it_is_sent_fails_and_says_so(
        self, tmp_path: Path
    ) -> None:
        async with running_server(tmp_path, with_worker=False) as server:
            file = await uploaded(server)
            reply = await server.submit(image_input=[file["reference"]])
            await server.call("DELETE", f"{FILES}/{file['id']}")
            key = server.key
        async with running_server(tmp_path) as server:
            server.key = key
            task = await server.finished(reply.json["task_id"])
        assert (task["state"], task["error"]["code"]) == ("fail", "reference_gone")
        assert not task["error"]["retryable"]
        assert task["billing"]["actual_amount_micro_usdc"] == 0
