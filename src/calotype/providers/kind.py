"""What a provider's file tells of itself, and how it is found: by its name.

The provider ``x-y`` is ``providers/x_y.py``, which has a ``KIND``, and its data is
``catalog/upstreams/x-y.toml``.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.wire import Upstream, Wire

if TYPE_CHECKING:  # they bring the HTTP client along, which most commands do not need
    from calotype.providers.line import Tools
    from calotype.providers.port import Provider


class SetUpFault(Exception):
    """What a channel is set up with cannot be used.

    Args:
        message: for the operator: it says what is wrong and what would be right.
        key: of the channel's table, where one key is at fault.

    """

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One protocol.

    Args:
        make: speaks it to one channel.
        needs_key: a channel without a credential is refused at start-up.
        remote: it is spoken to at a ``base_url``; a channel of one that is not has none.
        options: the channel's own ``options`` that it knows → what each is for.
        folders: those of them that name a folder; a relative one begins where the configuration
            lies.
        urls: those of them that are URLs to which the credential goes, as it goes to ``base_url``.
        narrow: from a channel, a model's public id and the wire of the upstream's file to the wire
            of this channel, where what it is set up with can do less. It may read files, and
            raises ``SetUpFault``. None: every channel takes what the file says.
        set_up: from a channel, its upstream's file and the folder where the configuration lies to
            the channel with what its options imply; raises ``SetUpFault``.
        check_here: raises ``SetUpFault`` where a worker on this machine cannot work for a channel.

    """

    make: "Callable[[Channel, Upstream, Tools], Provider]"
    needs_key: bool = True
    remote: bool = True
    options: Mapping[str, str] = {}
    folders: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    narrow: Callable[[Channel, str, Wire], Wire] | None = None
    set_up: Callable[[Channel, Upstream, Path], Channel] | None = None
    check_here: Callable[[Channel], None] | None = None


def has_kind(name: str) -> bool:
    """Whether there is code for a provider of this name, which a file of data is named for."""
    return importlib.util.find_spec(_module(name)) is not None


def kind_of(name: str) -> Kind:
    """The kind of this name; the caller has seen that there is one."""
    module = importlib.import_module(_module(name))
    found = module.KIND
    if not isinstance(found, Kind):
        raise TypeError(f"{module.__name__}.KIND is no Kind")
    return found


def _module(name: str) -> str:
    return f"calotype.providers.{name.replace('-', '_')}"
