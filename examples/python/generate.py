"""One image: generate.py PROMPT FILE."""

import sys

from calotype.client import APIError, Calotype, TaskFailed

prompt, file = sys.argv[1:]
with Calotype() as client:
    try:
        print(*client.generate(prompt, model="gpt-image-2").save(file))
    except (APIError, TaskFailed) as error:
        sys.exit(str(error))
