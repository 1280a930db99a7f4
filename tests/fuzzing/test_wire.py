"""A seeded slice of the fuzzer of bytes; ``make fuzz-api`` runs the long one."""

from pathlib import Path

import pytest

from fuzzing.mutating import Mutator
from fuzzing.samples import Message
from fuzzing.wire import Wrong, answers_in, fuzz

CASES = 4_000
PLAIN = Message("plain", "POST", "/v1/x", (("Content-Type", "application/json"),), b'{"a": [1]}')


@pytest.mark.timeout(400)
async def test_requests_that_are_wrong_on_purpose_are_answered_in_the_contracts_shape(
    tmp_path: Path,
) -> None:
    verdict = await fuzz(tmp_path, seed=41, cases=CASES)
    assert verdict.faults == [], f"\n{verdict}"
    assert verdict.cases == CASES
    assert {200, 202, 400, 401, 404, 413, 415} <= set(verdict.answers), f"\n{verdict}"


def test_a_seed_makes_the_same_cases_again_and_another_one_others() -> None:
    first, again, other = (Mutator([PLAIN], seed=seed) for seed in (5, 5, 6))
    cases = [first.case() for _ in range(300)]
    assert cases == [again.case() for _ in range(300)]
    assert cases != [other.case() for _ in range(300)]


@pytest.mark.parametrize(
    "data",
    [
        b"no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore",
    ],
)
def test_an_answer_that_is_no_sound_http_is_found(data: bytes) -> None:
    with pytest.raises(Wrong):
        list(answers_in(data, cut=False))
