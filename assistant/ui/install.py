"""Mynah as an app of a phone or a desktop: its manifest, its icons, and a worker that speaks when the server is away.

The worker holds one page, which says that the server cannot be reached, and stores nothing: no page and no reply of
anybody stays behind in a browser. The icons are drawn by `python -m tests.browser.icons`.

Left out on purpose: Gradio's own `pwa=`, whose manifest has one vector icon of Gradio's and no colours. Its pages ask
for /manifest.json, so that is where ours is.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse, JSONResponse, Response

from assistant.ui.language import say
from assistant.ui.render import HERE, show, static

ICONS = {"icon-192": 192, "icon-512": 512, "maskable-512": 512, "apple-180": 180}  # name: edge in pixels
PAPER, SUNK = "#faf8f3", "#f2eee5"  # --paper and --sunk of static/tokens.css: a manifest knows no variables
_CHECKED_EACH_TIME = {"Cache-Control": "no-cache", "Vary": "Accept-Language"}
_A_DAY = {"Cache-Control": "public, max-age=86400"}


def manifest() -> dict[str, Any]:
    """What a browser needs to offer Mynah as an app."""
    purposes = {"icon-192": "any", "icon-512": "any", "maskable-512": "maskable"}
    return {
        "id": "/",
        "name": "Mynah",
        "short_name": "Mynah",
        "description": say("The assistant that learns what you like, from what you click."),
        "start_url": "/",
        "scope": "/",
        "display": "standalone",
        "background_color": PAPER,
        "theme_color": SUNK,
        "icons": [
            {"src": f"/icons/{name}.png", "sizes": f"{edge}x{edge}", "type": "image/png", "purpose": purposes[name]}
            for name, edge in ICONS.items()
            if name in purposes
        ],
    }


def worker() -> str:
    """The script of the service worker, with the page that it holds."""
    page = show("offline.html", styles=static("tokens.css") + static("sign_in.css"))
    return show("worker.js", page=page)


def routes() -> APIRouter:
    """GET /manifest.json, /worker.js and /icons/NAME.png: the same for everybody, also before sign-in."""
    router = APIRouter(include_in_schema=False)

    @router.get("/manifest.json")
    def the_manifest() -> Response:
        return JSONResponse(manifest(), media_type="application/manifest+json", headers=_CHECKED_EACH_TIME)

    @router.get("/worker.js")
    def the_worker() -> Response:
        return Response(worker(), media_type="text/javascript", headers=_CHECKED_EACH_TIME)

    @router.get("/icons/{name}.png")
    def an_icon(name: str) -> Response:
        if name not in ICONS:
            return JSONResponse({"error": say("There is nothing here.")}, 404)
        return FileResponse(HERE / "static" / "icons" / f"{name}.png", media_type="image/png", headers=_A_DAY)

    return router
