"""The tokens of one-time links."""

from calotype.services.signin import Links

NOW = 1_700_000_000_000
SECRET = b"a secret of the server's"


def test_a_token_says_until_when_it_is_good_and_is_another_each_time() -> None:
    links = Links(SECRET, lambda: NOW)

    first, second = links.check(links.make(minutes=3)), links.check(links.make())

    assert first is not None
    assert second is not None
    assert (first.expires_at, second.expires_at) == (NOW + 180_000, NOW + 600_000)
    assert first.nonce != second.nonce


def test_a_token_expires() -> None:
    token = Links(SECRET, lambda: NOW).make(minutes=1)

    assert Links(SECRET, lambda: NOW + 59_999).check(token) is not None
    assert Links(SECRET, lambda: NOW + 60_000).check(token) is None


def test_a_token_of_another_secret_or_changed_or_of_nobody_is_none_of_ours() -> None:
    links = Links(SECRET, lambda: NOW)
    token = links.make()
    body, _, signature = token.partition(".")

    assert Links(b"another", lambda: NOW).check(token) is None
    assert links.check(f"{body[:-2]}AA.{signature}") is None
    for nonsense in ("", ".", "a.b", "ü", token + "x", "\x00", "a" * 10_000):
        assert links.check(nonsense) is None
