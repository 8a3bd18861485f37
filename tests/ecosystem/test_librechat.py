"""LibreChat's own packages as a client: they accept the documented librechat.yaml, chat and make a title.

Needs `make test-ecosystem` and Node.js. LibreChat's server is not among them (docs/CLIENTS.md).
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from assistant.mynah import Mynah
from benchmarks.peers import ENVIRONMENTS
from feedback.types import User
from tests.assistant.serving import listening
from tests.ecosystem.documented import block

pytestmark = pytest.mark.ecosystem
SCRIPT = Path(__file__).with_name("librechat_client.cjs")
TURNS = ["Name a colour.", "And another?"]
INSTRUCTIONS = {"role": "system", "content": "Be kind."}  # the script's


@pytest.fixture(scope="module")
def documented() -> str:
    return block("LibreChat", "yaml")


def librechat(yaml: str, **asked: Any) -> Any:
    """What the script makes of a librechat.yaml."""
    done = subprocess.run(
        ["node", str(SCRIPT)],
        input=json.dumps({"yaml": yaml, "turns": TURNS, **asked}),
        cwd=ENVIRONMENTS / "librechat",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_it_chats_as_documented_and_makes_a_title(mynah: Mynah, ada: User, documented: str) -> None:
    key = mynah.accounts.create_key(ada)[1]
    with listening(mynah) as address:
        told = librechat(documented, baseURL=f"{address}/v1", apiKey=key)
    assert "results" in told, told
    assert told["endpoint"] == told["written"], "it has no such setting"
    first, second, title = mynah.store.chats.all_replies(ada.id)
    for reply, result in zip((first, second), told["results"], strict=True):
        assert "".join(result["pieces"]) == reply.text and len(result["pieces"]) > 1
        (usage,) = result["usage"]
        assert usage["output_tokens"] == len(reply.token_ids) // 4 > 0
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    said = [{"role": "user", "content": TURNS[0]}, {"role": "assistant", "content": first.text}]
    assert second.prompt == [INSTRUCTIONS, *said, {"role": "user", "content": TURNS[1]}]
    assert told["title"] == title.text.strip() and title.arm == "base" and "title" in title.prompt[0]["content"]
    assert mynah.store.chats.conversations(ada.id) == [] and mynah.store.chats.own_prompts(ada.id, 10) == []


def test_what_it_is_told_when_a_key_is_wrong(mynah: Mynah, documented: str) -> None:
    with listening(mynah) as address:
        told = librechat(documented, baseURL=f"{address}/v1", apiKey="mynah-wrong")
    assert told["status"] == 401 and "API key" in told["failed"]


def test_the_two_other_ways_to_make_titles_are_refused(mynah: Mynah, ada: User, documented: str) -> None:
    key = mynah.accounts.create_key(ada)[1]
    with listening(mynah) as address:
        for method in ("structured", "functions"):
            changed = documented.replace('titleMethod: "completion"', f'titleMethod: "{method}"')
            told = librechat(changed, baseURL=f"{address}/v1", apiKey=key)
            assert told["status"] == 400 and "response_format" in told["failed"] and "only text" in told["failed"]


def test_its_packages_tell_a_wrong_file(documented: str) -> None:
    told = librechat(documented.replace('titleMethod: "completion"', 'titleMethod: "guess"'))
    assert told["problems"][0]["path"] == ["endpoints", "custom", 0, "titleMethod"]
    assert librechat(documented.replace("endpoints:", "endpoint:"))["problems"][0]["code"] == "unrecognized_keys"
