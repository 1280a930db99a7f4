"""The reference for language models: complete, and every link of it leads somewhere."""

import re

from calotype.api.render import STATUSES
from calotype.domain.errors import FAILURES
from harness import Server


async def text(server: Server, **headers: str) -> str:
    reply = await server.call("GET", "/llms.txt", headers={"Authorization": "", **headers})
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/markdown; charset=utf-8"
    return reply.body.decode()


async def test_every_route_model_and_code_is_told_under_a_title(idle_server: Server) -> None:
    told = await text(idle_server)
    assert re.match(r"# Calotype \S+\n\n> \S", told)
    spec = (await idle_server.call("GET", "/openapi.json")).json
    for path, operations in spec["paths"].items():
        for method in operations:
            assert f"`{method.upper()} {path}`\n" in told
    for model in idle_server.core.catalog.models.values():
        assert f"`{model.id}`; resolutions: " in told
    for code in (*STATUSES, *FAILURES):
        assert f"- [{code}](" in told


async def test_every_link_leads_somewhere(idle_server: Server) -> None:
    links = set(re.findall(r"\]\(([^)]+)\)", await text(idle_server)))
    page = (await idle_server.call("GET", "/docs")).body.decode()
    for link in links:
        path, _, anchor = link.removeprefix(idle_server.url).partition("#")
        assert path.startswith("/"), link
        if anchor:
            assert path == "/docs"
            assert f'id="{anchor}"' in page, link
        elif path != "/mcp":  # which answers POST only
            assert (await idle_server.call("GET", path)).status == 200, link


async def test_links_name_the_server_as_it_was_called(idle_server: Server) -> None:
    assert "(http://images.example.com/docs#" in await text(idle_server, Host="images.example.com")


async def test_a_copy_stays_good(idle_server: Server) -> None:
    first = await idle_server.call("GET", "/llms.txt")
    etag = first.headers["ETag"]
    again = await idle_server.call("GET", "/llms.txt", headers={"If-None-Match": etag})
    assert (again.status, again.body) == (304, b"")
