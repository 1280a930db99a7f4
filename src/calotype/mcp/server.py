"""The MCP server: the list of tools, and the one place where a call of a tool begins and ends."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    Tool,
    ToolAnnotations,
)

import calotype
from calotype.client import AsyncTask, CalotypeError
from calotype.mcp import results
from calotype.mcp.arguments import (
    CancelTask,
    EditImage,
    GenerateImage,
    GetTask,
    ListModels,
    ListTasks,
    ModelsShown,
    TaskShown,
    TasksShown,
    schema,
)
from calotype.mcp.faults import BROKEN, ToolFault, told
from calotype.mcp.tools import Tell, Tools

_INSTRUCTIONS: Final = (
    "Calotype makes images. list_models tells the models, what each takes and what it costs; "
    "generate_image and edit_image buy an image; get_task waits for one that takes longer, or "
    "brings an old one back. Show the user the image, and give its URL, which expires."
)
_PAYS: Final = (
    "Costs credits. Each call is a new purchase, also with the same arguments, unless "
    "idempotency_key is given: to get an image that is being made, or was made, call get_task."
)
_REFERENCES: Final = (
    "The images to work from, in order. Each is an http(s) URL, a data: URI in base64, asset:// "
    "and the id of an uploaded file, or the id of a finished task, whose first image is meant."
)
_FILES: Final = " The path of a PNG, JPEG or WebP file on this machine will do as well."

log = logging.getLogger(__name__)


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A tool in the list."""

    title: str
    description: str
    takes: type[msgspec.Struct]
    tells: type[msgspec.Struct]
    run: Callable[[Tools, Any, Tell | None], Awaitable[CallToolResult]]
    only_reads: bool = False
    ends_something: bool = False
    same_twice: bool = False
    """Whether a second call changes nothing more."""


_TOOLS: Final = {
    "list_models": _Entry(
        title="List image models",
        description="The models with their prices, parameters (allowed values, defaults) and "
        "limits; 1 000 000 micro-USDC is 1 USDC. With model, one of them in full.",
        takes=ListModels,
        tells=ModelsShown,
        run=Tools.list_models,
        only_reads=True,
    ),
    "generate_image": _Entry(
        title="Generate an image",
        description=f"Makes an image from a text and returns it with its URL and task id. {_PAYS}",
        takes=GenerateImage,
        tells=TaskShown,
        run=Tools.generate_image,
    ),
    "edit_image": _Entry(
        title="Edit images",
        description="Makes an image from a text and one or more reference images, such as an "
        f"earlier result, and returns it with its URL and task id. {_PAYS}",
        takes=EditImage,
        tells=TaskShown,
        run=Tools.edit_image,
    ),
    "get_task": _Entry(
        title="Get a task and its image",
        description="Reads a task, waiting for its image if need be; costs nothing, and gives "
        "the image again with a fresh URL.",
        takes=GetTask,
        tells=TaskShown,
        run=Tools.get_task,
        only_reads=True,
    ),
    "cancel_task": _Entry(
        title="Cancel a task",
        description="Ends a task that is not final. What was not sent to an upstream yet is "
        "free; else it ends as soon as the upstream lets it. A finished image stays.",
        takes=CancelTask,
        tells=TaskShown,
        run=Tools.cancel_task,
        ends_something=True,
        same_twice=True,
    ),
    "list_tasks": _Entry(
        title="List tasks",
        description="The account's tasks, newest first, without their pictures.",
        takes=ListTasks,
        tells=TasksShown,
        run=Tools.list_tasks,
        only_reads=True,
    ),
}


def build_server(tools: Tools) -> Server:
    """A server whose tools act for one caller; it holds nothing and is made in microseconds."""

    async def list_tools(
        _context: ServerRequestContext, _params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=listed(files=tools.files))

    async def call_tool(
        context: ServerRequestContext, params: CallToolRequestParams
    ) -> CallToolResult:
        return await _call(tools, context, params)

    return Server(
        "calotype",
        version=calotype.__version__,
        title="Calotype",
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def listed(*, files: bool) -> list[Tool]:
    """The tools as an agent sees them."""
    return [
        Tool(
            name=name,
            title=entry.title,
            description=entry.description,
            input_schema=_input_schema(entry, files=files),
            output_schema=schema(entry.tells),
            annotations=ToolAnnotations(
                read_only_hint=entry.only_reads,
                destructive_hint=entry.ends_something,
                idempotent_hint=entry.only_reads or entry.same_twice,
                open_world_hint=not entry.only_reads,
            ),
        )
        for name, entry in _TOOLS.items()
    ]


def _input_schema(entry: _Entry, *, files: bool) -> dict[str, Any]:
    found = schema(entry.takes)
    if "references" in found["properties"]:
        found["properties"]["references"]["description"] = _REFERENCES + _FILES * files
    return found


async def _call(
    tools: Tools, context: ServerRequestContext, params: CallToolRequestParams
) -> CallToolResult:
    entry = _TOOLS.get(params.name)
    if entry is None:
        known = ", ".join(_TOOLS)
        raise MCPError(INVALID_PARAMS, f"There is no tool {params.name[:80]!r}, only {known}.")
    try:
        asked = msgspec.convert(params.arguments or {}, entry.takes)
        return await entry.run(tools, asked, _teller(context))
    except msgspec.ValidationError as error:
        return results.refused(f"The arguments of {params.name} are wrong: {error}.")
    except ToolFault as error:
        return results.refused(str(error))
    except CalotypeError as error:
        return results.refused(told(error))
    except Exception:
        log.exception("the tool %s broke", params.name)
        return results.refused(BROKEN)


def _teller(context: ServerRequestContext) -> Tell | None:
    """How the caller is told of progress; None where it did not ask."""
    if context.meta is None or "progress_token" not in context.meta:
        return None
    last = -1

    async def tell(task: AsyncTask) -> None:
        nonlocal last
        if task.progress > last:  # the protocol wants it to grow each time
            last = task.progress
            message = f"{task.id} is {task.state}"
            await context.session.report_progress(last, total=100, message=message)

    return tell
