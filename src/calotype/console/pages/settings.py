"""/console/operator/settings: what is in force, and who says so."""

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.console.access import Visitor, operator_page
from calotype.console.context import Console
from calotype.services.effective import DEFAULT, settings_in_force

PATH: Final = "/console/operator/settings"
WORDS: Final[Mapping[str, str]] = {
    "config": "The file that was read.",
    "data_dir": "Folder of the embedded database, the images and the secret.",
    "host": "Address to listen on.",
    "port": "Port to listen on; 0 takes a free one.",
    "public_url": "How clients reach this server; empty takes the host of each request.",
    "secret": "Signs image URLs and sessions; where none is set, one is kept in the data folder.",
    "admin_password": "Opens these pages; without one only one-time links do.",
    "database_url": "The database; empty is the embedded one in the data folder.",
    "catalog_dir": "Folder of your own model files.",
    "reference_allow_hosts": "Private hosts that references may be fetched from.",
    "reference_timeout_seconds": "Longest time for one try at fetching one reference.",
    "webhook_allow_hosts": "Private hosts that webhooks may be sent to.",
    "asset_url_seconds": "How long a signed image URL is good for, at least.",
    "provenance": "Whether results say where they come from.",
    "keep_upstream_metadata": "Whether results keep what their upstreams wrote into them.",
    "result_days": "How many days the images of a task are kept; 0 until they are deleted.",
    "reference_days": "How many days references and files are kept; 0 until they are deleted.",
    "assets_url": "Where images lie: a folder or a cloud store; empty is in the data folder.",
    "asset_delivery": "Whether clients are sent to the cloud store or get images through here.",
    "asset_base_url": "What image URLs begin with where a CDN stands before this server.",
    "worker_concurrency": "Most tasks at a time in one worker on PostgreSQL; 0 is no limit.",
    "worker_lease_seconds": "After so long without a sign of life a worker loses its tasks.",
    "drain_seconds": "How long a stopping server waits for work that cannot be parked.",
    "sandbox_seconds": "Simulated work of the sandbox; 0 is none.",
    "sandbox_processes": "Processes that draw the sandbox's pictures.",
    "c2pa_certificate": "Certificates with which results are signed.",
    "c2pa_key": "File of the private key that signs results.",
    "conversion_processes": "Processes that make images another format or size.",
    "client_seconds": "How long a client may take over what it is to send, or to take, next.",
    "account_tasks": "Most unfinished tasks of an account; 0 is no limit.",
    "account_per_minute": "Most submissions of an account in a minute; 0 is no limit.",
    "log_level": "debug, info, warning or error.",
    "log_format": "json, or pretty for people; auto is pretty on a terminal.",
    "access_log": "Whether each request is logged.",
    "metrics_host": "Address that metrics are shown on.",
    "metrics_port": "Port that metrics are shown on; without one they are not.",
    "otlp_endpoint": "Where traces are sent; empty is nowhere.",
}
"""What each setting is for."""


def routes(console: Console) -> list[Route]:
    """The routes of this group."""

    async def settings(request: Request, _visitor: Visitor) -> Response:
        every = settings_in_force(console.settings)
        return console.render.page(
            request,
            "operator/settings.html",
            chosen=[each for each in every if each.source != DEFAULT],
            words=WORDS,
            defaults=[each for each in every if each.source == DEFAULT],
        )

    return [Route(PATH, operator_page(console, settings))]
