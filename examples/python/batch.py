"""One image for each line of a file, up to 100 lines: batch.py PROMPTS FOLDER."""

import hashlib
import sys
from pathlib import Path

from calotype.client import APIError, Calotype, GenerationRequest, TaskFailed

prompts, folder = Path(sys.argv[1]), Path(sys.argv[2])
requests = [
    GenerationRequest(
        prompt,
        model="gpt-image-2",
        # Of what is asked for: the same file sent again buys nothing twice.
        idempotency_key=f"batch-{hashlib.sha256(prompt.encode()).hexdigest()[:32]}",
    )
    for prompt in prompts.read_text(encoding="utf-8").splitlines()
]
with Calotype() as client:
    for answer in client.generate_batch(requests):  # each is accepted or refused on its own
        if isinstance(answer, APIError):
            print(answer, file=sys.stderr)
            continue
        try:
            print(*answer.save(folder / f"{answer.id}.png"))
        except TaskFailed as error:
            print(error, file=sys.stderr)
