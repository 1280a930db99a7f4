"""Workflow templates: graphs in ComfyUI's API format, and which of their inputs may be set.

``<name>.json`` is the graph as ComfyUI's "Export (API)" writes it, ``<name>.toml`` beside it names
the slots. ``<name>@2.json``, where there is one, is taken instead for two references. What a
client says goes into those inputs alone, never into a file name or a node's id.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from calotype.domain.catalog import Value
from calotype.domain.channel import Channel
from calotype.providers.kind import SetUpFault

Slots = str | tuple[str, ...]
"""Inputs that are set to the same value, each as ``<node>.<input>``."""

FOLDER: Final = "workflows"
"""The channel's option that names the folder of templates."""
VALUES: Final = (
    "prompt",
    "negative",
    "seed",
    "width",
    "height",
    "steps",
    "guidance",
    "batch",
    "checkpoint",
)
"""The slots that hold one value; ``images`` hold one each."""
_SHIPPED: Final = Path(__file__).parents[2] / "catalog" / "upstreams" / "comfyui"


class WorkflowFault(SetUpFault):
    """A template cannot be used."""


class NoWorkflow(WorkflowFault):
    """There is no graph of this name."""


class Sidecar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``<name>.toml``.

    Args:
        description: for people.
        prompt: where the prompt goes, and so on for all of ``VALUES``.
        images: where the references go, in their order: inputs of nodes that load a file.
        save: the node whose images are the result.
        always: a request's parameter that has no slot → the value that the graph draws with
            without being told. A request that says another goes to another channel.

    """

    description: str = ""
    prompt: Slots
    negative: Slots = ()
    seed: Slots = ()
    width: Slots = ()
    height: Slots = ()
    steps: Slots = ()
    guidance: Slots = ()
    batch: Slots = ()
    checkpoint: Slots = ()
    images: tuple[str, ...] = ()
    save: str
    always: dict[str, Value] = {}


class Workflow(msgspec.Struct, frozen=True):
    """A template, with its slots proved to be there."""

    name: str
    graph: Mapping[str, Any]
    slots: Sidecar

    def has(self, slot: str) -> bool:
        """Whether there is a place for this value."""
        return slot in VALUES and bool(getattr(self.slots, slot))

    def lack(self, slots: Iterable[str], *, references: int) -> str:
        """What a request needs and the template has no place for; empty when nothing."""
        for slot in slots:
            if not self.has(slot):
                return f"the workflow {self.name} has no slot for {slot}"
        if references != len(self.slots.images):
            return (
                f"the workflow {self.name} takes {len(self.slots.images)} references, not "
                f"{references}; another one can be made for so many, as {self.name}@{references}"
            )
        return ""

    def filled(self, values: Mapping[str, object], images: Sequence[str]) -> dict[str, Any]:
        """The graph with these values in their slots and these files in its loaders.

        It must have a place for all of them: see ``lack``.
        """
        graph = copy.deepcopy(dict(self.graph))
        for slot, value in values.items():
            for place in _places(getattr(self.slots, slot)):
                _set(graph, place, value)
        for place, image in zip(self.slots.images, images, strict=True):
            _set(graph, place, image)
        return graph


def folder_of(channel: Channel) -> Path:
    """Where a channel's templates lie: in its own folder, else in the one that is shipped."""
    own = channel.options.get(FOLDER)
    return Path(own) if own else _SHIPPED


def named(upstream_model: str) -> tuple[str, str]:
    """The template and the checkpoint (empty for the graph's own) that an upstream's id names."""
    name, _, checkpoint = upstream_model.partition("/")
    return name, checkpoint


def load_workflow(folder: Path, name: str, *, references: int) -> Workflow:
    """Read a template, the one for just so many references where there is one.

    Raises:
        NoWorkflow: there is none.
        WorkflowFault: it is not in order.

    """
    if not name or Path(name).name != name:
        raise NoWorkflow(f"{name!r} is no name of a workflow; write one without folders.")
    special = f"{name}@{references}"
    try:
        if (folder / f"{special}.json").is_file():
            name = special
        graph = msgspec.json.decode((folder / f"{name}.json").read_bytes())
        slots = msgspec.toml.decode((folder / f"{name}.toml").read_bytes(), type=Sidecar)
    except FileNotFoundError as error:
        missing = Path(error.filename or "").name
        kind = NoWorkflow if missing.endswith(".json") else WorkflowFault
        raise kind(f"there is no {missing} in the folder of workflows, {folder}.") from None
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WorkflowFault(f"the workflow {name} cannot be read: {error}.") from None
    workflow = Workflow(name, graph, slots)
    _prove(workflow)
    return workflow


def _prove(workflow: Workflow) -> None:
    """Each slot is an input of the graph that holds a value, and no link to another node."""
    name, graph, slots = workflow.name, workflow.graph, workflow.slots
    if not isinstance(graph, dict) or not all(
        isinstance(node, dict) and isinstance(node.get("inputs"), dict) for node in graph.values()
    ):
        raise WorkflowFault(f'{name}.json is no graph in API format; export it by "Export (API)".')
    if slots.save not in graph:
        raise WorkflowFault(f"{name}.toml: save: the graph has no node {slots.save}.")
    if not slots.prompt:
        raise WorkflowFault(f"{name}.toml: prompt: say which input takes the prompt.")
    for slot in (*VALUES, "images"):
        for place in _places(getattr(slots, slot)):
            node, _, field = place.partition(".")
            inputs = graph[node]["inputs"] if node in graph else {}
            if field not in inputs:
                raise WorkflowFault(f"{name}.toml: {slot}: the graph has no input {place}.")
            if isinstance(inputs[field], list | dict):
                raise WorkflowFault(f"{name}.toml: {slot}: {place} is linked to another node.")


def _places(slots: Slots) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else slots


def _set(graph: dict[str, Any], place: str, value: object) -> None:
    node, _, field = place.partition(".")
    graph[node]["inputs"][field] = value
