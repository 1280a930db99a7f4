"""How long a worker may be silent when the database was away."""

from datetime import timedelta

from calotype.store.postgres.jobs import Outage

LEASE = timedelta(seconds=12)


class Time:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_an_outage_the_lease_is_the_lease() -> None:
    outage = Outage(Time())
    outage.end()
    assert outage.lengthened(LEASE) == LEASE


def test_the_time_of_an_outage_is_held_against_no_worker_until_all_could_say_that_they_live() -> (
    None
):
    time = Time()
    outage = Outage(time)
    outage.begin()
    time.now += 30
    outage.begin()
    assert outage.lengthened(LEASE) == LEASE + timedelta(seconds=30)
    time.now += 1
    outage.end()
    time.now += 5
    assert outage.lengthened(LEASE) == LEASE + timedelta(seconds=36)
    time.now += 1.5
    assert outage.lengthened(LEASE) == LEASE


def test_outages_in_quick_succession_are_one() -> None:
    time = Time()
    outage = Outage(time)
    outage.begin()
    time.now += 2
    outage.end()
    time.now += 3
    outage.begin()
    time.now += 2
    outage.end()
    assert outage.lengthened(LEASE) == LEASE + timedelta(seconds=7)
    time.now += 7
    assert outage.lengthened(LEASE) == LEASE
    outage.begin()
    time.now += 4
    assert outage.lengthened(LEASE) == LEASE + timedelta(seconds=4)
