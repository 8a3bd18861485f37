"""Five hundred hostile names, of accounts, chats and exports: none makes or reads a file outside the data folder."""

from __future__ import annotations

import io
import itertools
import zipfile
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from assistant.accounts import check_name, name_key
from assistant.transcript import file_name
from feedback.errors import InvalidInput
from tests.assistant.test_api import give_version
from tests.security.world import World

PIECES = [
    "..", ".", "../", "..\\", "/", "\\", "/etc/passwd", "C:\\Windows", "\\\\host\\share", "~", "~root", "$HOME",
    "`id`", "%2e%2e%2f", "%00", "\x00", "\n", "\r\n", "\t", "\x1b[2J", "\u202e", "\u200f", "\u2215", "\uff0f",
    "\u2024\u2024", "-rf", "--out=x", "con", "NUL", "a", "Ada", "O'Neil", "x y", "é", "e\u0301", "小明", "🙂", "<b>",
    "'; drop table users; --", "v1", "base", "mynah.db", "file:///etc", "{name}", "%s", "\ud800", "x" * 70,
]  # fmt: skip
NAMES = [a + b for a, b in itertools.product(PIECES, PIECES)]
NAMES = NAMES[:: len(NAMES) // 500][:500]


def files_around(world: World) -> set[Path]:
    """What lies beside the data folder, and in the folder that the tests run in."""
    data = world.mynah.config.data_dir
    beside = {path for path in data.parent.rglob("*") if data not in path.parents}
    return beside | set(Path.cwd().iterdir())


def sound(name: str) -> bool:
    """Whether a file name is a name on every system and nothing more."""
    return Path(name).name == name and not set(name) & set('/\\:*?"<>|\0\r\n\t\x1b') and name.strip(". ") != ""


def test_there_are_five_hundred() -> None:
    assert len(set(NAMES)) == 500


def test_names_of_accounts(world: World, tmp_path: Path) -> None:
    """Most are refused; those that people could have make folders by id, and exports with sound names."""
    before, taken = files_around(world), []
    for name in NAMES:
        try:
            checked = check_name(name)
        except InvalidInput as error:
            error.message.encode()  # it can be told
            continue
        if world.mynah.store.people.find(name_key(checked)) is None:
            taken.append(world.mynah.store.people.add(checked, name_key(checked), "no password opens this"))
    assert 20 < len(taken) < 250, "some of each"
    for user in taken:
        assert sound(user.name) and not user.name.startswith(("-", "."))
        folder = world.mynah.versions.path(user.id, 1).resolve()
        assert folder.is_relative_to(world.mynah.config.data_dir.resolve())
    for user in taken[:3]:
        give_version(world.mynah, user, world.policy)
        answer = world.boss.program.get(f"/v1/admin/users/{quote(user.name, safe='')}/versions/v1/export")
        assert answer.status_code == 200, answer.text
        offered = unquote(answer.headers["content-disposition"].partition("''")[2])
        assert offered == f"{user.name}-v1-peft.zip" and sound(offered)
        own = tmp_path / f"{user.id}.zip"
        world.mynah.write_export(user, own)
        for file in (io.BytesIO(answer.content), own):
            with zipfile.ZipFile(file) as archive:
                assert all(not name.startswith("/") and ".." not in name for name in archive.namelist())
    assert files_around(world) == before


def test_names_of_exports(world: World) -> None:
    before = files_around(world)
    for number, name in enumerate(NAMES):
        part = quote(name.encode("utf-8", "surrogatepass"), safe="")
        ways = (
            f"/v1/admin/users/{part}/versions/v7/export",
            f"/v1/admin/users/Ada/versions/.{part}/export",
            f"/v1/admin/users/Ada/versions/v1/export?format=.{part}",
        )
        path = ways[number % len(ways)]
        assert world.boss.program.get(path).status_code in (400, 404), path
        assert world.ada.browser.get(f"/conversations/{part}.md").status_code == 404, name
    assert files_around(world) == before


@pytest.mark.parametrize("ending", ["md", "json"])
def test_names_of_chats(ending: str) -> None:
    for name in NAMES:
        offered = file_name(name, ending)
        assert sound(offered) and offered.endswith(f".{ending}"), name
        quote(offered)
