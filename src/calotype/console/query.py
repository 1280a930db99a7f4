"""What stands behind the question mark of a page's address, judged, and written back.

A page with fields shows it again with what is wrong beside each of them, as 422; for any other
``Query.refuse`` makes an error page of it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeVar
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request

from calotype.console.errors import PageError
from calotype.domain.catalog import quoted
from calotype.domain.errors import InvalidParameter
from calotype.domain.ids import decode, encode

BEFORE: Final = "before"
"""The name of the value that says where a page of a list begins."""
SAID: Final = "said"
"""The name of the word for what was just done."""
_NO_FIELDS: Final = (BEFORE, SAID)

Notice = tuple[str, str]
"""What a page says of what was just done: the kind of the notice, and the words."""
Notices = Mapping[str, Notice]

_Read = TypeVar("_Read")


class Query:
    """The values of a query string by name; what was left empty is not there.

    Args:
        text: as it came.
        names: those that the page knows; any other is told in ``wrong``.
        many: the one that may come more than once.

    Attributes:
        typed: every value as it came, to show it again; of many the first.
        wrong: what is wrong with a value, by its name; under ``""`` what fits no field. Where
            there is anything, nothing is to be looked for.

    """

    def __init__(self, text: bytes, names: Collection[str], *, many: str = "") -> None:
        self.typed: dict[str, str] = {}
        self.wrong: dict[str, str] = {}
        self._pairs: list[tuple[str, str]] = []
        try:
            said = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict")
        except UnicodeError:
            self.wrong[""] = "The address of this page is not text in UTF-8."
            return
        for name, value in ((name, value.strip()) for name, value in said):
            if name not in names:
                known = ", ".join(each for each in names if each not in _NO_FIELDS)
                self.wrong[""] = f"This page knows no {quoted(name)}; it knows {known or 'none'}."
            elif "\0" in value:
                self._note(name, f"{name} holds a NUL, which nothing here has; take it out.")
            elif value and name in self.typed and name != many:
                self._note(name, f"{name} came twice; say it once.")
            elif value:
                self.typed.setdefault(name, value)
                self._pairs.append((name, value))

    @property
    def filtered(self) -> bool:
        """Whether less is asked for than all."""
        return any(name not in _NO_FIELDS for name in self.typed)

    def all(self, name: str) -> Sequence[str]:
        """Every value of a name."""
        return [value for each, value in self._pairs if each == name]

    def read(self, name: str, judge: Callable[[str], _Read]) -> _Read | None:
        """A value as ``judge`` makes it of the text; None where there is none, or it is wrong.

        What ``judge`` raises as ``InvalidParameter`` is what is wrong with it.
        """
        if name not in self.typed:
            return None
        try:
            return judge(self.typed[name])
        except InvalidParameter as error:
            self._note(name, error.message)
            return None

    def among(self, name: str, words: Collection[str]) -> str:
        """A value that is one of these words; empty where there is none, or it is wrong."""
        word = self.typed.get(name, "")
        if word and word not in words:
            self._note(name, f"{name} is one of {', '.join(words)}, not {quoted(word)}.")
            return ""
        return word

    def notice(self, notices: Notices) -> Notice | None:
        """What the page is to say of what was just done; None where that is nothing."""
        return notices.get(self.among(SAID, notices))

    def refuse(self) -> None:
        """Be content, or raise.

        Raises:
            PageError: something is wrong.

        """
        for message in self.wrong.values():
            raise PageError(400, message)

    def link(self, path: str, *, before: int | str | None = None, said: str | None = None) -> str:
        """Where the same is asked for from another place on; the newest without one.

        Args:
            path: of the page.
            before: an id, or the word for a place in the list.
            said: the word for what will have been done by then.

        """
        pairs = [(name, value) for name, value in self._pairs if name not in _NO_FIELDS]
        if before is not None:
            pairs.append((BEFORE, encode("page", before) if isinstance(before, int) else before))
        if said is not None:
            pairs.append((SAID, said))
        return f"{path}?{urlencode(pairs)}" if pairs else path

    def _note(self, name: str, message: str) -> None:
        self.wrong.setdefault("" if name in _NO_FIELDS else name, message)


def asked(request: Request, *names: str, **words: Collection[str]) -> Mapping[str, str]:
    """Each of these by name, empty where it is not there; ``words`` have these values only.

    Raises:
        PageError: something is wrong with the address.

    """
    every = (*names, *words)
    query = Query(request.scope["query_string"], every)
    for name, known in words.items():
        query.among(name, known)
    query.refuse()
    return {name: query.typed.get(name, "") for name in every}


def notice(request: Request, notices: Notices) -> Notice | None:
    """What a page is to say that can be asked for nothing else; None where that is nothing.

    Raises:
        PageError: something is wrong with the address.

    """
    return notices.get(asked(request, **{SAID: notices})[SAID])


def page_id(word: str) -> int:
    """The id before which a page of a list begins.

    Raises:
        errors.InvalidParameter: the word names none.

    """
    number = decode("page", word)
    if number is None:
        raise InvalidParameter("The address of this page is not whole; begin with the newest.")
    return number
