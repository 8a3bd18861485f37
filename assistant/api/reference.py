"""docs/API.md, made out of the application's OpenAPI document: every route in the words of its docstring.

python -m assistant.api.reference > docs/API.md
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, cast

from assistant.api.app import create_app
from assistant.api.errors import STATUS
from assistant.mynah import Mynah

Schema = dict[str, Any]
BEGINNING = """\
# The HTTP API

Made by `python -m assistant.api.reference > docs/API.md`; what it says comes from the code. The same as an OpenAPI
document is at `GET /v1/openapi.json`, for people with a key or a session.

Everything is JSON in UTF-8; times are ISO 8601 in UTC; ids are opaque. Under `/v1` and at `/metrics` every request
carries `Authorization: Bearer KEY`, with a key from My assistant or `python app.py key create NAME`. What is not the
caller's does not exist for them: 404, in the same words as for what was never there. The chat part is OpenAI's, so
their clients work with the address of the server and `/v1` as `base_url`.

## A first round

```sh
export MYNAH=http://127.0.0.1:7860/v1 KEY=mynah-…
curl $MYNAH/chat/completions -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
    -d '{"model": "mynah", "messages": [{"role": "user", "content": "How do I keep bees?"}], "max_tokens": 64}'
curl $MYNAH/feedback -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
    -d '{"reply_id": "r_…", "thumb": 1}'
curl $MYNAH/me/profile -H "Authorization: Bearer $KEY"
curl -X POST $MYNAH/me/updates -H "Authorization: Bearer $KEY"   # from ten labels on
```

The first answer holds the `reply_id` that the second request names. With `"n": 2` two replies come to be compared, and
`{"ranking": [["best"], ["other"]]}` says which is better.

## Arms

A reply is written by one of five arms. `auto` takes the one that the caller's own record favours.

| arm | who writes |
|---|---|
| `base` | the base model |
| `context` | the base, told in words what is known of the person's taste |
| `rerank` | the best of several base replies by the person's reward head |
| `adapter` | the active version |
| `adapter+rerank` | both |
"""
ERRORS = """
## Errors

`{"error": {"message", "type", "code", "param"}}`, in OpenAI's shape. The message says what was got and what to do;
`code` is for programs. Answers 429, and 503 while a model server is away, carry `Retry-After` in seconds.

| status | code | when |
|---|---|---|
"""


def document() -> Schema:
    """The OpenAPI document; no route is called, so no services are needed."""
    return create_app(cast(Mynah, None), browser=False).openapi()


def page() -> str:
    """The whole page as Markdown."""
    described = document()
    routes: defaultdict[str, list[str]] = defaultdict(list)  # by tag, in the order of the document
    for path, methods in _resolved(described["paths"], described["components"]["schemas"]).items():
        for method, operation in methods.items():
            routes[operation["tags"][0]].append(_route(f"{method.upper()} {path}", operation))
    groups = (part for tag, each in routes.items() for part in (f"\n## {tag}\n", *each))
    return "".join([BEGINNING, *groups, ERRORS, *_errors()])


def _resolved(value: Any, schemas: Schema) -> Any:
    """The same with every schema that is only named in its place."""
    if isinstance(value, dict):
        if "$ref" in value:
            named = schemas[value["$ref"].rpartition("/")[2]]
            value = {**named, **{name: own for name, own in value.items() if name != "$ref"}}
        return {name: _resolved(each, schemas) for name, each in value.items()}
    return [_resolved(each, schemas) for each in value] if isinstance(value, list) else value


def _route(name: str, operation: Schema) -> str:
    """One route: what it is for, what it takes, and how a good answer is numbered."""
    status = next(code for code in operation["responses"] if code.startswith("2"))
    numbered = "" if status == "200" else f" Answers {status}."
    rows = [*_parameters(operation), *_body(operation)]
    table = "\n| takes | as | |\n|---|---|---|\n" if rows else ""
    return "".join([f"\n### {name}\n\n{operation['description'].strip()}{numbered}\n", table, *rows])


def _parameters(operation: Schema) -> Iterator[str]:
    """Rows of what stands in the query or a header; what is in the path needs no words."""
    for each in operation.get("parameters", []):
        if each["in"] != "path":
            yield _row(f"`{each['name']}` ({each['in']})", each["schema"], bool(each["required"]), each)


def _body(operation: Schema) -> Iterator[str]:
    """Rows of a JSON body's fields."""
    if "requestBody" in operation:
        yield from _fields(operation["requestBody"]["content"]["application/json"]["schema"], "")


def _fields(schema: Schema, prefix: str) -> Iterator[str]:
    """Rows of an object's fields, those of an object within it below it."""
    for name, field in schema.get("properties", {}).items():
        yield _row(f"`{prefix}{name}`", field, name in schema.get("required", []), field)
        for inner in _choices(field):
            yield from _fields(inner, f"{prefix}{name}.")


def _row(name: str, schema: Schema, needed: bool, described: Schema) -> str:
    """A row of a table; where anything goes there is no type, and the words say what."""
    kinds = " or ".join(filter(None, (each.get("type") for each in _choices(schema))))
    words = described.get("description", "").replace("|", "\\|")
    return f"| {name} | {', '.join(filter(None, [kinds, 'needed' * needed]))} | {words} |\n"


def _choices(schema: Schema) -> list[Schema]:
    """What a value can be, beside null."""
    return [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]


def _errors() -> Iterator[str]:
    """Rows of the errors that have a name, and the one that has none."""
    rows = [(status, kind.code, " ".join((kind.__doc__ or "").split())) for kind, status in STATUS.items()]
    rows.append((500, "internal_error", "A defect; the message holds the number under which the server's log has it."))
    yield from (f"| {status} | `{code}` | {words} |\n" for status, code, words in sorted(rows))


if __name__ == "__main__":
    print(page(), end="")
