"""No secret is compared in a way whose time tells how much of it was right."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import calotype
from calotype.domain import keys
from calotype.store.sqlite import SqliteStore

SOURCE: Final = Path(calotype.__file__).parent
SECRET: Final = re.compile(r"(^|_)(secret|signature|password|token|digest|mac|hmac)$")
"""Names of what must not be guessed."""
EQUAL: Final = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
HARMLESS: Final = {
    (
        "console/sessions.py",
        "session.password not in {'', self._mark}",
    ): "the cookie is signed, so nobody chooses what is compared",
}
"""Comparisons that look like one of a secret, and why each is none."""


def comparisons() -> Iterator[tuple[str, str]]:
    """File and text of every ``==``, ``!=`` and ``in`` with such a name on a side of it."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Compare):
                continue
            sides = [node.left, *node.comparators]
            if not any(isinstance(each, EQUAL) for each in node.ops):
                continue
            if any(isinstance(each, ast.Constant) for each in sides):
                continue
            if any(SECRET.search(name) for each in sides for name in names_in(each)):
                yield str(path.relative_to(SOURCE)), ast.unparse(node)


def names_in(side: ast.expr) -> Iterator[str]:
    """What a side is called."""
    match side:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            yield name
        case ast.Call(func=called):
            yield from names_in(called)
        case _:
            return


def test_secrets_are_compared_in_constant_time() -> None:
    assert set(comparisons()) == set(HARMLESS)


async def test_a_key_is_found_by_its_hash_and_compared_with_nothing(tmp_path: Path) -> None:
    """The index is asked for the hash of what was sent, of which no part can be guessed."""
    store = SqliteStore(tmp_path / "calotype.db")
    await store.migrate()
    try:
        account = await store.open_account("ada", now=1)
        secret = keys.new_key()
        key = keys.ApiKey(1, account.id, "ada", "a", secret[: keys.PREFIX_LENGTH], 1, None, None)
        await store.add_key(key, digest=keys.hash_key(secret))
        near = secret[:-1] + ("A" if secret[-1] != "A" else "B")
        assert await store.find_key(keys.hash_key(secret)) is not None
        assert await store.find_key(keys.hash_key(near)) is None
        first, second = keys.hash_key(secret), keys.hash_key(near)
        same = sum(one == other for one, other in zip(first, second, strict=True))
        assert same < len(first) // 2, "a near guess is as far from it as any other"
    finally:
        await store.close()


@pytest.mark.parametrize("place", ["services/assets.py", "console/sessions.py"])
def test_signatures_are_judged_by_hmac(place: str) -> None:
    text = (SOURCE / place).read_text(encoding="utf-8")
    assert "hmac.compare_digest(" in text
    assert "hmac.digest(" in text
