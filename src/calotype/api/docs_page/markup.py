"""Text into HTML: names set as code, JSON and shell commands with a little colour."""

import json
import re
from html import escape
from typing import Final

_TOKEN: Final = re.compile(r'(?P<key>"[^"\\]*")(?=:)|(?P<text>"(?:[^"\\]|\\.)*")')


def prose(text: str) -> str:
    """Paragraphs, parted by blank lines."""
    return "".join(f"<p>{inline(part)}</p>" for part in text.split("\n\n"))


def inline(text: str) -> str:
    """Text with its `names` set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def field_name(path: str) -> str:
    """A field's path: what leads to it set back, with places to break a long line at."""
    leading, dot, name = path.rpartition(".")
    led = f'<span class="path">{_breakable(leading + dot)}</span>' if dot else ""
    return f"<code>{led}{_breakable(name)}</code>"


def _breakable(name: str) -> str:
    return re.sub(r"([._])(?=.)", r"\1<wbr>", escape(name)) + ("<wbr>" if name[-1:] == "." else "")


def as_json(value: object) -> str:
    """JSON with its keys and strings coloured."""
    written = json.dumps(value, indent=2, ensure_ascii=False)
    return _TOKEN.sub(
        lambda found: f'<span class="{"k" if found["key"] else "s"}">{found[0]}</span>',
        escape(written, quote=False),
    )


def as_shell(command: str) -> str:
    """A command with its comments set back."""
    return re.sub(r"(?m)^#.*$", r'<span class="c">\g<0></span>', escape(command, quote=False))
