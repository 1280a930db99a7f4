"""What a channel's workflows can be asked for, so that nothing else is sent there.

Which workflow draws depends on how many references there are, and so do its slots.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import asdict, replace

from calotype.domain.catalog import Model
from calotype.domain.channel import Channel
from calotype.domain.wire import SHAPE, Asked, Field, Size, Wire
from calotype.providers.comfyui.workflow import (
    NoWorkflow,
    Workflow,
    WorkflowFault,
    folder_of,
    load_workflow,
    named,
)


class ByReferences(Wire, frozen=True, kw_only=True):
    """A wire for each number of references that there is a workflow for.

    Args:
        wires: number of references → its wire.

    """

    wires: Mapping[int, Wire]

    def unable(self, request: Asked, *, references: int) -> str | None:
        """Why a request cannot be honoured in full, or None when it can."""
        wire = self.wires.get(references)
        if wire is None:
            numbers = " or ".join(str(number) for number in self.wires)
            return f"it takes {numbers} reference images, not {references}"
        return wire.unable(request, references=references)

    def hopeless(self, model: Model) -> str | None:
        """A parameter that every request sets, and one of the workflows has no place for."""
        for number, wire in self.wires.items():
            if number <= model.references.max_items and (lacking := wire.hopeless(model)):
                return lacking
        return None

    def fields(
        self, model: Model, request: Asked, *, reference_sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Any]:
        """The fields that go out; those of the file where no workflow takes so many references.

        That is so for a task that was accepted before its workflow was taken away.
        """
        wire = self.wires.get(len(reference_sizes))
        if wire is None:
            return super().fields(model, request, reference_sizes=reference_sizes)
        return wire.fields(model, request, reference_sizes=reference_sizes)


def narrow(channel: Channel, model: str, wire: Wire) -> Wire:
    """What the workflows that a channel names for a model have slots for.

    Raises:
        WorkflowFault: one is missing, is not in order, or can never be used.

    """
    folder, served = folder_of(channel), channel.served(model)
    wires = dict[int, Wire]()
    used = set[str]()
    unused = dict[str, WorkflowFault]()
    for count in range(wire.max_references + 1):
        upstream_model = wire.model_id(served.id, served.edit, references=count) or model
        name, checkpoint = named(upstream_model)
        try:
            workflow = load_workflow(folder, name, references=count)
        except NoWorkflow as fault:
            unused.setdefault(name, fault)
            continue
        if lack := workflow.lack((), references=count):
            if workflow.name != name:  # made for just so many
                raise WorkflowFault(f"{lack}.")
            unused.setdefault(name, WorkflowFault(f"{lack}."))
            continue
        used.add(name)
        wires[count] = _wire(workflow, wire, editing=bool(count), checkpoint=bool(checkpoint))
    for name, why in unused.items():
        if name not in used:
            raise why
    return ByReferences(**{**asdict(wire), "max_references": max(wires), "wires": wires})


def _wire(workflow: Workflow, wire: Wire, *, editing: bool, checkpoint: bool) -> Wire:
    """The wire of one workflow, for the requests that it is for."""
    if checkpoint and not workflow.has("checkpoint"):
        raise WorkflowFault(
            f"{workflow.name}.toml names no slot for the checkpoint that stands after the slash; "
            "name one, or take the checkpoint out."
        )
    for name in (*wire.constants, *(wire.edit_constants if editing else ())):
        if not workflow.has(name):
            raise WorkflowFault(
                f"{workflow.name}.toml names no slot for {name}, a constant of "
                "upstreams/comfyui.toml; name one, or take the constant out."
            )
    always = {
        name: Field(field=name, omit=(value,), enum=(value,))
        for name, value in workflow.slots.always.items()
    }
    slotted = {name: each for name, each in wire.parameters.items() if workflow.has(each.field)}
    untold = {
        name: untold
        for name, each in wire.parameters.items()
        if (untold := _untold(each, editing=editing)) is not None
    }
    size = wire.size if wire.size is not None and _sized(workflow, wire.size) else None
    for name in always:
        if name in slotted or (size is not None and name in SHAPE):
            raise WorkflowFault(
                f"{workflow.name}.toml: always: {name} has a slot; take one of the two out."
            )
    return replace(
        wire,
        parameters={**untold, **always, **slotted},
        size=size,
        max_images=wire.max_images if workflow.has("batch") else 1,
    )


def _untold(field: Field, *, editing: bool) -> Field | None:
    """A parameter that has no slot, with the values that are said by leaving it out, if any."""
    values = tuple(value for value in field.omit if field.said(value, editing=editing) is None)
    return Field(field=field.field, omit=values, enum=values) if values else None


def _sized(workflow: Workflow, size: Size) -> bool:
    return all(workflow.has(slot) for slot in (size.field, size.width, size.height) if slot)
