"""Every English text that a page can show, gathered from the code: pages, tables, traits, and what services say.

Services fill in their sentences at once, so what stands in their places has no name: it is written {} here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import chain

from jinja2 import Environment, nodes

from assistant.ui import words
from feedback import errors
from feedback.traits import TRAITS
from tests.browser.site import ROOT

UI = ROOT / "assistant" / "ui"
TEMPLATES = sorted((UI / "templates").glob("*.html"))
SAYS = {"say": 0, "in_browser": 0, "counted": 2}  # function → which argument is the text
ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

# Modules whose errors a person can meet on a page, and functions that write sentences for people.
SERVICES = [
    *(f"assistant/{name}.py" for name in (
        "accounts", "administration", "attempts", "chat", "config", "engine", "joining", "learning", "limits",
        "messages", "preview", "quick_questions", "requests", "schedule", "settings", "trainer", "turns", "updates",
        "vllm", "vllm_http",
    )),
    *(f"assistant/ui/{name}.py" for name in ("admin_page", "chat_page", "events", "live", "my_assistant", "verdicts")),
    *(f"assistant/ui/{name}.py" for name in ("session", "side_routes", "sign_in")),
    *(f"feedback/store/{name}.py" for name in ("acts", "chats", "database", "people", "server", "versions")),
    *(f"adapters/{name}.py" for name in ("policy", "rendering", "update", "versions", "worker")),
]  # fmt: skip
SENTENCES = {
    "adapters/checks.py": None,
    "adapters/job.py": {"read_job"},
    "adapters/memory.py": {""},
    "adapters/worker.py": {"_reason"},
    "assistant/accounts.py": {"", "__init__"},
    "assistant/administration.py": {"", "_readable"},
    "assistant/evidence.py": {"_click"},
    "assistant/forgetting.py": {"", "unlearn"},
    "assistant/joining.py": {"", "__init__"},
    "assistant/limits.py": {"__init__"},
    "assistant/probation.py": {"words", "stories", "_told", "_compared", "_liked", "_name"},
    "assistant/profile.py": {"changed_line", "_words"},
    "assistant/ray_bridge.py": {""},
    "assistant/ray_executor.py": {"lost"},
    "assistant/ray_node.py": {"refusal"},
    "assistant/schedule.py": {"may_start", "forecast", "_opening", "_others", "_labels"},
    "assistant/settings.py": {"__init__"},
    "assistant/trainer.py": {"_settle", "_crashed", "_guessed"},
    "assistant/turns.py": {"join"},
    "assistant/ui/sign_in.py": {"sign_in"},
    "assistant/updates.py": {"cancel", "start"},
    "feedback/types.py": {"unusable"},
}
SINGLE = {"deleted", "disabled", "requests"}  # words that sentences are filled with

# What an earlier release wrote down with versions that are still shown.
FORMER = {
    "A judge that knows only the {} labels kept out of the training prefers the new version in {} of comparisons; {} "
    "are asked for. So few labels say little: it is {} sure that you would prefer it too.",
}
# What only programs and the command line are told: no page sends what these complain about.
NEVER = {
    "Another request with this Idempotency-Key was faster; ask again for its answer.",
    "Only the first message can be a system message.",
    "The arm {} needs an active version, and you have none yet; update first.",
    "The conversation has {} messages; at most {} are taken.",
    "The database {} was written by a newer Mynah (it has {}). Upgrade, or restore a backup made before the upgrade{}.",
    "The last message must be the user's: it is what gets answered.",
    "The model is the base, but the arm {} needs a version; leave one out.",
    "The model names v{}, but the arm {} uses no version; leave one out.",
    "There can be no version {} of {}.",
    "The database was not copied to {}: {}. Free some space and try again.",
    "There is no reply {}. Use a reply_id from one of your own replies.",
    "This API key is not valid; make one on the page “My assistant” or with `app.py key create`.",
    "This Idempotency-Key was used for a different request; use a new one.",
    "Reply {} was asked for with learn: false, so it takes no feedback.",
    "The ranking names replies to different prompts; only replies to one prompt compare.",
    "There is no trait {}; GET /v1/me/profile lists them.",
    'With "verdict": "neither" the ranking is one tier: all are bad.',
    "preferences[{}]: {}",
    "reasons must be a list of at most {} short texts.",
    "replies has {} texts; it can have 1 to {}.",
    "replies[{}]",
    "thumb is {}; it can be 1, -1 or 0.",
    'verdict is {}; it can be "neither" or left out.',
    "weight is {}; it can be -1 to 1, or null.",
    "base_model is empty; it must be a folder, a hub id or the default.",
    "engine is {}; it can be {}.",
    "host is {}; it must be an address or a host name.",
    "max_tokens is {}; it can be 1 to {}.",
    "n is {}; it can be 1 to {}.",
    "quantize is {}; it can be {}.",
    "seed is {}; it can be 0 to 2**63 - 1.",
    "sign_up is {}; it can be {}.",
    "update_config is {}; there is no such file.",
    "vllm_url is {}; it must be like http://127.0.0.1:8000.",
    "{} answered {} to GET /v1/models, not as vLLM does; --vllm-url must be where a vLLM server is.",
    "The model server at {} serves {}, which cannot write for {}: {}. Start it with {} (docs/OPERATING.md has the "
    "command), or start Mynah with its base.",
    "executor is {}; it can be {}.",
    "ray_address is {}; it must be host:port of the cluster's head, or auto.",
    'messages must be a list that is not empty: [{"role": "user", "content": ".."}].',
    "{} must be an object with role and content.",
    "{}.content has a part of type {}; only text is read.",
    "{}.content has a text part without text.",
    "{}.role is {}; it can be system, user or assistant.",
    *("alpha is a probability", "set by you"),  # an assertion, and a part of a sentence
}
NAMES = {"Mynah", "Markdown", "JSON", "· Mynah", "UTC"}  # in any language


def pages() -> set[str]:
    """What templates, handlers and scripts say."""
    found = {text for path in sorted(UI.glob("*.py")) for text in _said(ast.parse(path.read_text("utf-8")))}
    for path in TEMPLATES:
        for call in Environment().parse(path.read_text("utf-8")).find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name in SAYS:
                text = call.args[SAYS[call.node.name]]
                assert isinstance(text, nodes.Const), f"{path.name}: {call.node.name} takes a text as it stands"
                found.add(text.value)
    for path in (UI / "static").glob("*.js"):
        found |= set(re.findall(r"[sS]ay\('([^']+)'\)", path.read_text("utf-8")))
    return found


def tables() -> set[str]:
    """Words of tables that pages show: arms, states, reasons, checks, months, and what admins did."""
    arms = chain(*words._ARMS.values(), *words._SOME_VERSION.values())
    states = chain([words.UNTRAINED], words.STATES.values(), words.STAGES.values(), words.STATUSES.values())
    checks = (text for call in _calls("adapters/checks.py", {"Check", "_band"}) for text in _texts(call.args[0]))
    said = (*arms, *states, *words.UP_REASONS, *words.DOWN_REASONS, *words.TRY_THESE, *MONTHS, *checks)
    return {*said, *_audited()} - {"{v}"}


def traits() -> set[str]:
    """Titles and the two ends of every trait."""
    titles = {f"{name.replace('_', ' ').capitalize()} [trait]" for name in TRAITS}
    return titles | {end for trait in TRAITS.values() for end in (trait.more, trait.less)}


def services() -> set[str]:
    """Errors, and sentences for people."""
    raised = (call.args[0] for path in SERVICES for call in _calls(path, ERRORS) if call.args)
    said = (text for path, functions in SENTENCES.items() for text in _sentences(path, functions))
    whats = (call.args[1] for path in SERVICES for call in _calls(path, {"check_text"}))
    found = chain(chain.from_iterable(map(_texts, chain(raised, whats))), said)
    return {text for text in map(bare, found) if text.strip("{} ,.:")} - NEVER | SINGLE | FORMER


def spoken_outside(source: str) -> list[str]:
    """Words of a template that no call says: between its tags, or in attributes that people read."""
    kept = re.sub(r"\{%.*?%\}|\{\{.*?\}\}", "", source, flags=re.DOTALL)
    kept = re.sub(r"<(svg|style|script|code|kbd)\b.*?</\1>", "", kept, flags=re.DOTALL)
    shown = re.findall(r'(?:aria-label|title|placeholder|alt|data-confirm)="([^"]*)"', kept)
    shown += re.sub(r"<[^>]*>", "\n", kept).splitlines()
    return [text.strip() for text in shown if re.search(r"[A-Za-z]{2}", text) and text.strip() not in NAMES]


def _said(tree: ast.AST) -> Iterator[str]:
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in SAYS:
            text = call.args[SAYS[call.func.id]]
            if isinstance(text, ast.Constant):
                yield text.value


def _audited() -> set[str]:
    calls = (call for path in (ROOT / "assistant").rglob("*.py") for call in _calls(str(path), {"note"}))
    return {text for call in calls if len(call.args) > 1 for text in _texts(call.args[1])}


def _calls(path: str, names: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in names:
                yield node


def _sentences(path: str, functions: set[str] | None) -> Iterator[str]:
    """Texts with a space in them, of these functions (None: all, "": the module's constants), less documentation."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (functions is None or node.name in functions):
            documented = node.body[1:] if ast.get_docstring(node) else node.body
            for part in (*documented, *node.args.defaults):
                yield from (text for text in _texts(part) if " " in text)
    for node in tree.body if functions and "" in functions else []:
        if isinstance(node, ast.Assign):
            yield from (text for text in _texts(node.value) if " " in text)


def _texts(node: ast.AST) -> Iterator[str]:
    """Strings under a node, {} for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)


def bare(text: str) -> str:
    """A text with {} for every placeholder, or for several that touch."""
    return re.sub(r"(\{\w*\})+", "{}", text)
