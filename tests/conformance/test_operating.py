"""What a store keeps for its operator, and the services that write it."""

import pytest

from calotype.domain.errors import InsufficientBalance
from calotype.services.audit import CLI, Audit
from calotype.store.operating import LINKS_KEPT_MS, AuditEntry
from calotype.store.port import Store

NOW = 1_700_000_000_000


async def test_an_action_is_written_down_before_it_is_done_and_with_what_came_of_it(
    store: Store,
) -> None:
    audit = Audit(store, clock=lambda: NOW)

    async with audit.action(CLI, "key.create", "account ada", "for tests") as noting:
        (begun,) = await store.operating.actions(limit=10)
        noting.detail += ", key_1"

    (done,) = await store.operating.actions(limit=10)
    assert begun.outcome == "begun"
    assert done == AuditEntry(
        begun.id, NOW, "cli", "key.create", "account ada", "for tests, key_1", "done"
    )


async def test_an_action_that_is_refused_says_why(store: Store) -> None:
    audit = Audit(store, clock=lambda: NOW)

    with pytest.raises(InsufficientBalance):
        async with audit.action(CLI, "credit.add", "account ada"):
            raise InsufficientBalance("There is less than that.")

    (entry,) = await store.operating.actions(limit=10)
    assert entry.outcome == "refused: There is less than that."


async def test_an_action_that_broke_off_says_so_and_shows_nothing_of_the_fault(
    store: Store,
) -> None:
    audit = Audit(store, clock=lambda: NOW)

    with pytest.raises(ZeroDivisionError):
        async with audit.action(CLI, "credit.add", "x" * 10_000):
            _ = 1 / 0

    (entry,) = await store.operating.actions(limit=10)
    assert entry.outcome == "broke off: ZeroDivisionError"
    assert len(entry.subject) == 500


async def test_what_was_done_is_done_though_it_cannot_be_written_down_any_more(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    audit = Audit(store, clock=lambda: NOW)

    async with audit.action(CLI, "key.create", "account ada") as noting:
        noting.detail = "\ud800"  # no database takes it

    (entry,) = await store.operating.actions(limit=9)
    assert entry.outcome == "begun"
    assert "stays as begun" in caplog.text


async def test_the_audit_is_read_a_page_at_a_time_and_by_its_actions(store: Store) -> None:
    audit = Audit(store, clock=lambda: NOW)
    for number in range(6):
        async with audit.action(CLI, ("key.create", "key.revoke")[number % 2], str(number)):
            pass

    first = await store.operating.actions(limit=4)
    second = await store.operating.actions(limit=4, before=first[-1].id)
    revoked = await store.operating.actions(limit=2, action="key.revoke")
    rest = await store.operating.actions(limit=2, action="key.revoke", before=revoked[-1].id)

    assert [entry.subject for entry in (*first, *second)] == list("543210")
    assert [entry.subject for entry in (*revoked, *rest)] == list("531")
    assert await store.operating.kinds_of_actions() == ["key.create", "key.revoke"]


async def test_an_empty_audit_tells_of_no_action(store: Store) -> None:
    assert not await store.operating.kinds_of_actions()


async def test_a_cutoff_only_moves_on(store: Store) -> None:
    assert await store.operating.cutoff("admin") is None

    await store.operating.cut_off("admin", now=NOW)
    await store.operating.cut_off("admin", now=NOW - 5)

    assert await store.operating.cutoff("admin") == NOW
    assert await store.operating.cutoff("account:1") is None
    await store.operating.cut_off("admin", now=NOW + 5)
    assert await store.operating.cutoff("admin") == NOW + 5


async def test_a_link_is_spent_once_and_forgotten_long_after_it_has_expired(store: Store) -> None:
    spend = store.operating.spend_link

    assert await spend("first", expires_at=NOW + 10, now=NOW)
    assert not await spend("first", expires_at=NOW + 10, now=NOW)
    assert await spend("second", expires_at=NOW + 10, now=NOW)
    assert not await spend("first", expires_at=NOW + 10, now=NOW + LINKS_KEPT_MS)
    assert await spend("third", expires_at=NOW + LINKS_KEPT_MS, now=NOW + LINKS_KEPT_MS + 11)
    assert await spend("first", expires_at=NOW + 10, now=NOW + LINKS_KEPT_MS + 11)
