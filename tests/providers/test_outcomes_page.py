"""The page of outcomes is what the suite proves."""

from providers.bed import catalog, protocols
from providers.outcomes_page import COMMAND, PAGE, page
from providers.protocol import Protocol
from providers.scripts import MEANINGS, Script


def test_the_page_is_written_from_the_tables() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"run {COMMAND}"


def test_every_script_has_a_meaning(protocol: Protocol) -> None:
    assert list(MEANINGS) == list(Script)
    own = set(protocol.expected) - set(MEANINGS)
    assert own == set(protocol.meanings), protocol.provider
    assert all("|" not in meaning for meaning in protocol.meanings.values())


def test_every_shipped_protocol_but_the_sandbox_is_in_the_suite() -> None:
    local = {"diffusers"}  # its engine speaks no HTTP; test_diffusers.py has its own fake
    assert set(protocols()) == set(catalog().upstreams) - local
