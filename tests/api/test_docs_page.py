"""The reference page: self-contained, complete, and sound for keyboards and screen readers."""

import base64
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from calotype.api.render import STATUSES
from calotype.domain.errors import FAILURES
from harness import Server, running_server

VOID = {"meta", "link", "img", "br", "wbr", "hr", "input"}
LEADS_OUT = re.compile(r"(?i)^(?:[a-z][a-z0-9+.-]*:)?//")


class Page(HTMLParser):
    """What a test needs to know of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.ids = Counter[str]()
        self.targets: list[str] = []
        self.loads: list[str] = []
        self.headings: list[int] = []
        self.tags = Counter[str]()
        self.without_alt = 0
        self.open: list[str] = []
        self.text = ""
        self.style = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags[tag] += 1
        if tag not in VOID:
            self.open.append(tag)
        if "id" in given:
            self.ids[given["id"] or ""] += 1
        for name in ("href", "src", "action", "data", "poster", "srcset"):
            link = given.get(name) or ""
            if link.startswith("#"):
                self.targets.append(link[1:])
            elif link:
                self.loads.append(link)
        if tag == "img" and "alt" not in given:
            self.without_alt += 1
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += data


async def page(server: Server, **headers: str) -> Page:
    reply = await server.call("GET", "/docs", headers={"Authorization": "", **headers})
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    return Page(reply.body.decode())


async def test_the_policy_lets_the_page_load_nothing_from_elsewhere(idle_server: Server) -> None:
    reply = await idle_server.call("GET", "/docs")
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in reply.headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    digest = hashlib.sha256(Page(reply.body.decode()).style.encode()).digest()
    assert policy["style-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert "unsafe" not in reply.headers["Content-Security-Policy"]


async def test_the_page_refers_to_nothing_outside_and_has_no_script(idle_server: Server) -> None:
    shown = await page(idle_server)
    assert not [link for link in shown.loads if LEADS_OUT.match(link)]
    assert "url(" not in shown.style
    assert "@import" not in shown.style
    assert not shown.tags["script"]
    assert not re.search(r"\son[a-z]+=|\sstyle=", re.sub(r"(?s)<pre.*?</pre>", "", shown.source))


async def test_what_the_page_loads_and_links_is_there(idle_server: Server) -> None:
    shown = await page(idle_server)
    for link in {link for link in shown.loads if not link.startswith("data:")}:
        assert (await idle_server.call("GET", f"/{link}")).status == 200, link


async def test_every_model_every_code_and_every_endpoint_is_told(idle_server: Server) -> None:
    shown = await page(idle_server)
    for model in idle_server.core.catalog.models.values():
        assert shown.ids[f"model-{model.id}"]
        for word in (model.id, model.name, *(each.name for each in model.parameters)):
            assert word in shown.text
    for code in STATUSES:
        assert shown.ids[f"error-{code}"]
    for code in FAILURES:
        assert shown.ids[f"failure-{code}"]
    spec = (await idle_server.call("GET", "/openapi.json")).json
    for path in spec["paths"]:
        assert path in shown.text


async def test_the_page_is_well_formed(idle_server: Server) -> None:
    shown = await page(idle_server)
    assert not shown.open
    assert [name for name, count in shown.ids.items() if count > 1] == []
    assert set(shown.targets) <= set(shown.ids)
    assert not shown.without_alt
    assert shown.tags["main"] == shown.tags["nav"] == shown.tags["h1"] == 1
    deeper = zip(shown.headings, shown.headings[1:], strict=False)
    assert all(after <= before + 1 for before, after in deeper)


async def test_a_copy_of_the_page_stays_good(idle_server: Server) -> None:
    first = await idle_server.call("GET", "/docs")
    again = await idle_server.call("GET", "/docs", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")


async def test_the_commands_name_the_server_as_it_was_called(idle_server: Server) -> None:
    assert f"BASE={idle_server.url}\n" in (await page(idle_server)).text + "\n"
    named = await page(idle_server, Host="images.example.com")
    assert "BASE=http://images.example.com\n" in named.text + "\n"


@pytest.mark.parametrize("host", ['"><script>x', "evil host", "images.example.com/x", "<b>evil"])
async def test_a_host_that_is_none_is_not_repeated(idle_server: Server, host: str) -> None:
    shown = await page(idle_server, Host=host)
    assert host not in shown.source
    assert idle_server.url in shown.text


async def test_a_public_url_stands_in_the_commands_whatever_the_host(tmp_path: Path) -> None:
    public = "https://images.example.com/a&b"
    async with running_server(tmp_path, with_worker=False, public_url=f"{public}/") as server:
        shown = await page(server, Host="other.example.com")
    assert f"BASE={public}\n" in shown.text + "\n"
    assert "other.example.com" not in shown.source
