"""Pages and pieces of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from calotype.console.render import NAV, Renderer
from calotype.console.sessions import Role, Session, Sessions, Signed
from calotype.core import build_core
from calotype.settings import Settings

VALUES: dict[str, Any] = {"title": "A title", "message": "A message", "status": 404}


@pytest.fixture
def render(tmp_path: Path) -> Renderer:
    core = build_core(Settings(data_dir=tmp_path))
    secret = b"a secret of the tests"
    sessions = Sessions(secret, settings=core.settings, store=core.store, clock=core.clock)
    return Renderer(sessions, clock=core.clock)


def asked(
    path: str = "/console", *, role: Role | None = None, headers: Mapping[str, str] | None = None
) -> Request:
    signed = None if role is None else Signed(Session(id="x", role=role, issued_at=0), None)
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "query_string": b""}
    sent = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return Request({**scope, "headers": sent, "state": {"signed": signed}})


@pytest.mark.parametrize(
    ("headers", "whole"),
    [
        ({}, True),
        ({"hx-request": "true"}, False),
        ({"hx-request": "true", "hx-history-restore-request": "true"}, True),
    ],
)
def test_htmx_is_given_the_piece_that_it_asks_for(
    render: Renderer, headers: dict[str, str], *, whole: bool
) -> None:
    request = asked(headers=headers)
    answer = render.page(request, "error.html", fragment="error_fragment.html", **VALUES)
    assert (b"<!doctype html>" in bytes(answer.body)) is whole
    assert answer.headers["vary"] == "HX-Request"


def test_a_page_without_pieces_is_whole_for_everybody(render: Renderer) -> None:
    answer = render.page(asked(headers={"hx-request": "true"}), "error.html", **VALUES)
    assert b"<!doctype html>" in bytes(answer.body)
    assert "vary" not in answer.headers


def test_what_stands_in_a_page_is_text(render: Renderer) -> None:
    page = render.text(asked().scope, "error_fragment.html", message='<script>"&')
    assert "&lt;script&gt;&#34;&amp;" in page


@pytest.mark.parametrize("role", ["account", "admin"])
def test_the_navigation_says_where_a_page_belongs(render: Renderer, role: Role) -> None:
    for item in NAV[role]:
        for path in (item.path, f"{item.path}/something"):
            page = render.text(asked(path, role=role).scope, "error.html", **VALUES)
            current = [line for line in page.split("<a ") if 'aria-current="page"' in line]
            assert current
            assert all(f'href="{item.path}"' in line for line in current)
