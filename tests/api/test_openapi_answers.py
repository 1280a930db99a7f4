"""What the server really answers, held against its own OpenAPI document."""

from typing import Any

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from harness import Server, picture


async def document(server: Server) -> dict[str, Any]:
    reply = await server.call("GET", "/openapi.json", headers={"Authorization": ""})
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    loaded: dict[str, Any] = reply.json
    return loaded


def fits(document: dict[str, Any], name: str, answer: object) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    Draft202012Validator(schema).validate(answer)


async def test_the_document_is_sound_and_a_copy_of_it_stays_good(idle_server: Server) -> None:
    validate(await document(idle_server))
    first = await idle_server.call("GET", "/openapi.json")
    again = await idle_server.call(
        "GET", "/openapi.json", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert (again.status, again.body) == (304, b"")
    assert "max-age" in first.headers["Cache-Control"]


async def test_a_task_fits_its_schema_from_acceptance_to_success(server: Server) -> None:
    spec = await document(server)
    accepted = await server.submit(aspect_ratio="16:9", resolution="2K", channel_id=1)
    fits(spec, "TaskAccepted", accepted.json)
    fits(spec, "Task", await server.task(accepted.json["task_id"]))
    done = await server.finished(accepted.json["task_id"])
    assert done["state"] == "success"
    fits(spec, "Task", done)


async def test_a_failed_task_fits_its_schema(server: Server) -> None:
    spec = await document(server)
    accepted = await server.submit(prompt="sandbox:refuse")
    failed = await server.finished(accepted.json["task_id"])
    assert failed["state"] == "fail"
    fits(spec, "Task", failed)


async def test_a_waiting_task_fits_its_schema(idle_server: Server) -> None:
    spec = await document(idle_server)
    accepted = await idle_server.submit(image_input=["https://example.com/a.png"])
    waiting = await idle_server.task(accepted.json["task_id"])
    assert waiting["state"] == "waiting"
    fits(spec, "Task", waiting)


async def test_the_other_answers_fit_their_schemas(idle_server: Server) -> None:
    spec = await document(idle_server)
    for path, name in [
        ("/v1/models", "ModelList"),
        ("/v1/models/gpt-image-2", "Model"),
        ("/v1/credits/balance", "Balance"),
        ("/healthz", "Health"),
        ("/readyz", "Readiness"),
    ]:
        reply = await idle_server.call("GET", path)
        assert reply.status == 200, path
        fits(spec, name, reply.json)


async def test_errors_fit_the_one_schema_and_stand_in_the_document(idle_server: Server) -> None:
    spec = await document(idle_server)
    generations = spec["paths"]["/v1/images/generations"]["post"]["responses"]
    for fields, headers in [
        ({"resolution": "8K"}, {}),
        ({"model": "no-such-model"}, {}),
        ({"prompt": "x"}, {"Authorization": "Bearer nonsense"}),
        ({"prompt": "x"}, {"Content-Type": "text/plain"}),
    ]:
        body = {"model": "gpt-image-2", "prompt": "a lighthouse", **fields}
        reply = await idle_server.call("POST", "/v1/images/generations", json=body, headers=headers)
        fits(spec, "Error", reply.json)
        assert reply.json["code"] in generations[str(reply.status)]["x-codes"]
    for method, path, status in [("GET", "/nothing", 404), ("DELETE", "/v1/models", 405)]:
        reply = await idle_server.call(method, path)
        assert reply.status == status
        fits(spec, "Error", reply.json)


async def test_lists_and_batches_fit_their_schemas(idle_server: Server) -> None:
    spec = await document(idle_server)
    plain = {"model": "gpt-image-2", "prompt": "x", "metadata": {"page": "1"}}
    body = {"requests": [plain, {**plain, "idempotency_key": "a"}, {**plain, "n": 2}]}
    fits(spec, "BatchRequest", body)
    operation = spec["paths"]["/v1/images/generations/batch"]["post"]["requestBody"]
    for example in operation["content"]["application/json"]["examples"].values():
        fits(spec, "BatchRequest", example["value"])
    batch = await idle_server.call("POST", "/v1/images/generations/batch", json=body)
    assert batch.status == 202
    fits(spec, "BatchAnswer", batch.json)
    fits(spec, "BatchRefusal", batch.json["data"][2])
    fits(spec, "TaskAccepted", batch.json["data"][0])
    for query in ("", "?limit=1"):
        fits(spec, "TaskList", (await idle_server.call("GET", f"/v1/tasks{query}")).json)
    for method, path in [("GET", "/v1/tasks?page=1"), ("POST", "/v1/images/generations/batch")]:
        reply = await idle_server.call(method, path, json={"requests": []})
        operation = spec["paths"][path.partition("?")[0]][method.lower()]
        fits(spec, "Error", reply.json)
        assert reply.json["code"] in operation["responses"][str(reply.status)]["x-codes"]


async def test_files_fit_their_schemas(idle_server: Server) -> None:
    spec = await document(idle_server)
    operations = spec["paths"]["/v1/files"]
    png = {"Content-Type": "image/png"}
    replies = [
        await idle_server.call("POST", "/v1/files", data=picture(), headers=png) for _ in range(2)
    ]
    assert [reply.status for reply in replies] == [201, 200]
    for reply in replies:
        assert str(reply.status) in operations["post"]["responses"]
        fits(spec, "File", reply.json)
    word = replies[0].json["id"]
    fits(spec, "File", (await idle_server.call("GET", f"/v1/files/{word}")).json)
    fits(spec, "FileList", (await idle_server.call("GET", "/v1/files?limit=1")).json)
    refused = await idle_server.call("POST", "/v1/files", data=b"x", headers=png)
    fits(spec, "Error", refused.json)
    assert refused.json["code"] in operations["post"]["responses"]["400"]["x-codes"]
