"""The routes of the page."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dynamic_tinybert.serving.http.by_task import kind_of
from dynamic_tinybert.serving.jobs import Backend

from .files import HEADERS, INDEX, file_routes
from .overview import overview


def page_routes(backend: Backend) -> list[Route]:
    """The page, and the files that it consists of. A server for other models than those that answer has an overview."""
    files = file_routes()
    ask = files.pop(INDEX)

    async def page(request: Request) -> Response:
        facts = backend.facts
        if facts is None or kind_of(facts) == "answers":
            return await ask(request)
        return Response(overview(facts), headers=HEADERS, media_type="text/html")

    return [Route("/", page), *(Route(f"/{name}", serve) for name, serve in files.items())]
