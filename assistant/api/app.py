"""The whole HTTP application over one Mynah: the API under /v1, /healthz, /metrics, and the browser pages at /."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.middleware import Middleware

from assistant import metrics
from assistant.api import admin, chat, errors, feedback, me, models, versions
from assistant.api.deps import Admin, Counts, Served
from assistant.api.middleware import Caught, Counted, Identified, Limited
from assistant.mynah import Mynah

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


def create_app(mynah: Mynah, *, browser: bool = True) -> FastAPI:
    """The application. browser: also serve the pages; off where only the API is wanted."""
    traffic = metrics.Traffic()
    app = FastAPI(
        title="Mynah",
        version="1",
        description="A self-hosted assistant that learns each person's taste from what they click.",
        openapi_url="/v1/openapi.json",  # like all under /v1 only for those with a key or a session
        docs_url=None,  # these two pages load their scripts from elsewhere
        redoc_url=None,
        responses={"default": {"model": errors.Failure, "description": "An error, in words"}},
        middleware=[
            Middleware(Counted, traffic=traffic),
            Middleware(Caught),
            Middleware(Identified, mynah=mynah),
            Middleware(Limited),
        ],
    )
    app.state.mynah, app.state.traffic = mynah, traffic
    errors.install(app)
    for group in (models, chat, feedback, me, versions, admin):
        app.include_router(group.router)

    @app.get("/healthz", tags=["The server"])
    @app.head("/healthz", include_in_schema=False)
    def healthz() -> dict[str, str]:
        """Whether the server answers; open to all."""
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse, tags=["The server"])
    def metrics_page(mynah: Served, traffic: Counts, admin: Admin) -> PlainTextResponse:
        """Prometheus' text format, for admins; it names nobody."""
        return PlainTextResponse(metrics.render(mynah, traffic), media_type=metrics.CONTENT_TYPE)

    def nothing(request: Request) -> JSONResponse:
        raise errors.nowhere(request.method, request.scope["path"])

    for path in ("/v1", "/v1/{path:path}", "/healthz", "/metrics"):  # what nothing above has answered
        app.add_api_route(path, nothing, methods=METHODS, include_in_schema=False)

    if browser:
        from assistant.ui.app import mount

        return mount(app, mynah)
    return app
