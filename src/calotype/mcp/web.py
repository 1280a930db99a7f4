"""One request to ``/mcp``: answered on its own, so that any process can answer the next.

There are no sessions: each request carries its key and is served by a server made for it, which
lives as long as the answer. Progress goes into the answer itself, which is then a stream.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

import httpx2
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp, Receive, Scope, Send

from calotype.client import AsyncCalotype
from calotype.mcp.message import Cuts
from calotype.mcp.previews import Previews
from calotype.mcp.server import build_server
from calotype.mcp.tools import Tools

# The check of Host and Origin is against pages that have a name lead to this machine and then
# use what a browser may reach. Nothing here trusts where a request comes from: it has to bring a
# key, which a browser does not add by itself. The names of a deployment are not known here either.
_SECURITY = TransportSecuritySettings(enable_dns_rebinding_protection=False)


class Web:
    """Answers for all callers of a process.

    Args:
        app: the API, which the tools call as any client does.
        stopping: whether nobody should be kept waiting any longer.
        limit: bytes of a request, which was measured already.

    """

    def __init__(self, app: ASGIApp, *, stopping: Callable[[], bool], limit: int) -> None:
        self._app = app
        self._stopping = stopping
        self._limit = limit
        self._previews = Previews()
        # It would cut off every stream the moment that the server is told to stop; the tools end
        # by themselves then, and with the id of the task.
        AppStatus.enable_automatic_graceful_drain = False

    async def answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        key: str,
        base_url: str,
        request_id: str,
        stream: bool,
        cuts: Cuts | None,
    ) -> None:
        """Answer a request whose key was found good.

        Args:
            scope: of the request.
            receive: gives its body.
            send: takes the answer.
            key: the caller's.
            base_url: how the caller reaches this server.
            request_id: goes with every call that the tools make.
            stream: whether the caller takes server-sent events.
            cuts: what was cut out of the body.

        """
        inside = httpx2.ASGITransport(_below(self._app, urlsplit(base_url).path))
        headers = {"X-Request-Id": request_id}
        async with httpx2.AsyncClient(transport=inside, headers=headers, trust_env=False) as http:
            client = AsyncCalotype(key, base_url, http_client=http)
            tools = Tools(client, self._previews, cuts=cuts, stopping=self._stopping)
            manager = StreamableHTTPSessionManager(
                build_server(tools),
                stateless=True,
                json_response=not stream,
                security_settings=_SECURITY,
                max_request_body_size=self._limit,
            )
            async with manager.run():
                await manager.handle_request(scope, receive, send)


def _below(app: ASGIApp, prefix: str) -> ASGIApp:
    """The application as it is seen through a proxy that takes this off each path."""

    async def seen(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(prefix.rstrip("/"))
        await app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    return seen
