import pytest

from calotype.net.answers import retry_after

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
        ({"retry-after": "100000"}, 86_400),
        ({"retry-after-ms": "999999999999"}, 86_400),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30),
        ({"retry-after": "Fri, 15 Jan 2027 09:00:30 +0100"}, 30),
        ({"retry-after": "Fri, 15 Jan 2027 07:59:59 GMT"}, None),
        ({"retry-after": "Wed, 15 Jan 2031 08:00:00 GMT"}, 86_400),
        (
            {
                "retry-after": "Fri, 15 Jan 2027 12:00:10 GMT",
                "date": "Fri, 15 Jan 2027 12:00:00 GMT",
            },
            10,
        ),
        *[
            ({"retry-after": junk}, None)
            for junk in ("-1", "", "soon", "nan", "inf", "1e9", "9" * 400, "٣", "0x10", "1 2")
        ],
    ],
)
def test_the_wait_is_told_in_three_ways(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=NOW) == seconds
