"""The browser app, mounted at "/" of the HTTP application: sign-in routes, the guard, and Gradio with its traps closed.

Left out on purpose: Gradio's own API, run history, file serving, uploads, analytics and sign-in; the guard refuses
their paths.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import gradio as gr
from fastapi import FastAPI, Request
from starlette.middleware import Middleware

from assistant.mynah import Mynah
from assistant.ui.admin_page import AdminPage
from assistant.ui.calls import Calls
from assistant.ui.chat_page import ChatPage
from assistant.ui.events import in_browser
from assistant.ui.install import routes as install_routes
from assistant.ui.my_assistant import MyAssistantPage
from assistant.ui.session import Guard, session_user
from assistant.ui.side_routes import routes as side_routes
from assistant.ui.sign_in import routes
from assistant.ui.theme import head, styles, theme

MAX_THREADS = 64
MAX_PAGES = 200  # of which Gradio remembers what they show; ours never ask for it, and its own 10,000 only grow
QUEUE_SECONDS = 0.01  # between two looks at an empty queue; Gradio's own 0.001 takes 6% of a core for nothing


def mount(app: FastAPI, mynah: Mynah) -> FastAPI:
    """Add the browser app to an application that has all its other routes already: "/" takes what is left."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read by parts of Gradio that take no argument

    def signed_in(request: Request) -> str | None:
        user = session_user(request, mynah.accounts)
        return user.id if user else None

    app.include_router(routes(mynah))
    app.include_router(side_routes(mynah))
    app.include_router(install_routes())
    app.add_middleware(Guard, accounts=mynah.accounts)
    with warnings.catch_warnings():
        # Said of every app with several pages, also where server-side rendering was not asked for.
        warnings.filterwarnings("ignore", message="SSR mode is not supported with multi-page apps")
        blocks = build(mynah)
        app.user_middleware.append(Middleware(Calls, blocks=blocks))  # innermost, behind the limit on bodies
        return _mounted(app, blocks, signed_in)


def _mounted(app: FastAPI, blocks: gr.Blocks, signed_in: Callable[[Request], str | None]) -> FastAPI:
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth_dependency=signed_in,
        show_error=False,
        run_history=False,
        footer_links=[],
        allowed_paths=[],
        blocked_paths=["/"],
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        max_file_size=1,
        theme=theme(),
        css=styles(),
        head=head(),
        i18n=in_browser,
    )


def build(mynah: Mynah) -> gr.Blocks:
    """All pages as one Gradio app, so that they share what the browser loads."""
    with gr.Blocks(title="Mynah", analytics_enabled=False, fill_width=True) as blocks:
        gr.Navbar(visible=False)
        ChatPage(mynah).build(blocks)
    with blocks.route("My assistant", "/my-assistant", show_in_navbar=False):
        gr.Navbar(visible=False)
        MyAssistantPage(mynah).build(blocks)
    with blocks.route("Admin", "/admin", show_in_navbar=False):
        gr.Navbar(visible=False)
        AdminPage(mynah).build(blocks)
    blocks.queue(api_open=False)
    blocks._queue.sleep_when_free = QUEUE_SECONDS
    blocks.max_threads = MAX_THREADS
    blocks.state_session_capacity = MAX_PAGES
    return blocks
