"""The same request as code: for curl, for our Python client, for OpenAI's."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

_KEY: Final = '-H "Authorization: Bearer $CALOTYPE_API_KEY"'
_COMMON: Final = ("model", "prompt", "n")
"""Fields that OpenAI's client has names for."""


class Wanted(msgspec.Struct, frozen=True):
    """A request to be said as code.

    Args:
        base_url: of the server.
        fields: of the request; those left at their default may be left out.
        files: names of the files that are references, in order.
        urls: references by URL, which come after the files.

    """

    base_url: str
    fields: Mapping[str, Any]
    files: Sequence[str] = ()
    urls: Sequence[str] = ()

    @property
    def count(self) -> int:
        """How many images."""
        count: int = self.fields.get("n", 1)
        return count


def samples(wanted: Wanted) -> list[tuple[str, str]]:
    """Each way with its name."""
    return [
        ("curl", curl(wanted)),
        ("Python", python(wanted)),
        ("OpenAI SDK", openai(wanted)),
    ]


def curl(wanted: Wanted) -> str:
    """For a shell: submit, wait, download."""
    base = wanted.base_url
    sent = _form(wanted) if wanted.files else _body(wanted)
    lines = [f"curl -sS {base}/v1/images/generations", _KEY, *sent]
    last = f"tail -n {wanted.count}"
    found = f"grep -o 'http[^\"]*/v1/assets/[^\"]*' task.json | {last}"
    if wanted.count == 1:
        download = f'curl -sS "$({found})" -o picture.png'
    else:
        download = "\n".join(
            [
                "NUMBER=0",
                f"for URL in $({found}); do",
                "  NUMBER=$((NUMBER + 1))",
                '  curl -sS "$URL" -o "picture-$NUMBER.png"',
                "done",
            ]
        )
    return "\n".join(
        [
            " \\\n  ".join(lines) + " | tee task.json",
            "",
            "TASK=$(grep -o 'task_[0-9a-z]\\{13\\}' task.json | head -n 1)",
            f'until curl -sS "{base}/v1/tasks/$TASK" -o task.json \\\n    {_KEY}',
            """  grep -Eq '"state":"(success|fail)"|"code"' task.json; do sleep 1; done""",
            download,
        ]
    )


def python(wanted: Wanted) -> str:
    """For our own client."""
    fields = dict(wanted.fields)
    prompt = fields.pop("prompt")
    model = fields.pop("model")
    arguments = [_literal(prompt), f"model={_literal(model)}"]
    arguments += [f"{name}={_literal(value)}" for name, value in fields.items()]
    references = [f"Path({_literal(name)})" for name in wanted.files]
    references += [_literal(url) for url in wanted.urls]
    if references:
        arguments.append(f"references=[{', '.join(references)}]")
    imports = ["from calotype.client import Calotype"]
    if wanted.files:
        imports = ["from pathlib import Path", "", *imports]
    return "\n".join(
        [
            *imports,
            "",
            "# The key is read from CALOTYPE_API_KEY.",
            f"with Calotype(base_url={_literal(wanted.base_url)}) as client:",
            _call("    task = client.generate", arguments),
            '    print(task.save("picture.png"))',
        ]
    )


def openai(wanted: Wanted) -> str:
    """For OpenAI's client, pointed at this server."""
    if wanted.files and wanted.urls:
        return (
            "# OpenAI's client sends references as files.\n"
            "# Download those that are URLs, and send them as files, too."
        )
    fields = dict(wanted.fields)
    arguments = [f"{name}={_literal(fields.pop(name))}" for name in _COMMON if name in fields]
    if wanted.files:
        opened = ", ".join(f"Path({_literal(name)})" for name in wanted.files)
        arguments.append(f"image=[{opened}]")
    if wanted.urls:
        fields["image_input"] = list(wanted.urls)
    if fields:
        arguments.append(f"extra_body={_literal(fields)}")
    make = "edit" if wanted.files else "generate"
    return "\n".join(
        [
            "import base64",
            "import os",
            "from pathlib import Path",
            "",
            "from openai import OpenAI",
            "",
            "client = OpenAI(",
            f"    base_url={_literal(f'{wanted.base_url}/openai/v1')},",
            '    api_key=os.environ["CALOTYPE_API_KEY"],',
            ")",
            _call(f"answer = client.images.{make}", arguments),
            "for number, image in enumerate(answer.data, 1):",
            '    Path(f"picture-{number}.png").write_bytes(base64.b64decode(image.b64_json))',
        ]
    )


def _body(wanted: Wanted) -> list[str]:
    document = dict(wanted.fields)
    if wanted.urls:
        document["image_input"] = list(wanted.urls)
    text = json.dumps(document, ensure_ascii=False, indent=2)
    return ["-H 'Content-Type: application/json'", f"-d {shlex.quote(text)}"]


def _form(wanted: Wanted) -> list[str]:
    fields = [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in wanted.fields.items()
    ]
    parts = [f"--form-string {shlex.quote(f'{name}={value}')}" for name, value in fields]
    parts += [f"-F {shlex.quote(f'image=@{name}')}" for name in wanted.files]
    return parts + [f"--form-string {shlex.quote(f'image_input={url}')}" for url in wanted.urls]


def _call(head: str, arguments: Sequence[str]) -> str:
    """A call, one argument a line."""
    indent = " " * (len(head) - len(head.lstrip()))
    return "\n".join([f"{head}(", *(f"{indent}    {each}," for each in arguments), f"{indent})"])


def _literal(value: Any) -> str:
    """A value as Python spells it, strings in double quotes."""
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False)
        case dict():
            pairs = (f"{_literal(key)}: {_literal(each)}" for key, each in value.items())
            return f"{{{', '.join(pairs)}}}"
        case list():
            return f"[{', '.join(map(_literal, value))}]"
    return repr(value)
