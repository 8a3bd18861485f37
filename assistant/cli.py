"""The command line: what can be asked and with which options; each command is a function in `commands` or `serve`.

Whatever cannot be done ends with exit code 2 and one sentence on stderr; a traceback is a defect. Torch and the like
are imported only by the commands that need them, so that `user add` answers at once.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from assistant.config import PREFIX, Config, convert, default_of, in_environment
from assistant.logs import set_up
from feedback.errors import InvalidInput, MynahError

CANNOT = 2
EVERYWHERE = ("data_dir", "models_dir", "base_model", "quantize")
_METAVARS = {"int": "N", "float": "N", "str": "TEXT", "Path": "PATH", "Path | None": "PATH"}
TRAINING = (*EVERYWHERE, "update_config", "kl_budget", "threads", "nice", "tensorboard", "executor", "ray_address")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = build_parser()
    if not given or (given[0] not in commands and given[0] not in ("-h", "--help")):
        given.insert(0, "serve")
    parsed = vars(parser.parse_args(given))
    run: Callable[[Config, dict[str, Any]], int] = parsed.pop("run")
    set_up(sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that this terminal has no letters for
    try:
        parsed |= {name: _flag(name) for name, value in parsed.items() if value is False}
        return run(Config.build(parsed), parsed)
    except MynahError as error:
        return cannot(error.message)
    except UnicodeEncodeError:  # from a store or a hash: what is printed has a form for everything
        return cannot("What was given holds bytes that are no UTF-8; type it anew.")
    except KeyboardInterrupt:
        return cannot("Interrupted.")
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def cannot(sentence: str) -> int:
    """Say in one line why not; the exit code for it."""
    print(" ".join(sentence.split()), file=sys.stderr)
    return CANNOT


class _Parser(argparse.ArgumentParser):
    """argparse with our way of saying no."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(cannot(f"{self.prog}: {message}; see --help."))


def build_parser() -> tuple[argparse.ArgumentParser, set[str]]:
    """The parser, and the names of its commands."""
    from assistant import commands
    from assistant.serve import serve

    parser = _Parser(prog="app.py", description="Mynah, a self-hosted assistant that learns each person's taste.")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "Without a command: serve. Every option can also be set in the environment, as MYNAH_… (MYNAH_DATA_DIR)."
    )
    subs = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(where: Any, name: str, words: str, run: Any, options: Sequence[str] = EVERYWHERE) -> _Parser:
        sub: _Parser = where.add_parser(name, help=words, description=words)
        sub.set_defaults(run=run)
        for each in options:
            _add_option(sub, each)
        return sub

    command(subs, "serve", "run the server", serve, [each.name for each in fields(Config)])

    user = subs.add_parser("user", help="add, list and remove people, set passwords").add_subparsers(
        metavar="WHAT", required=True
    )
    for name, words, run in (
        ("add", "add a person", commands.user_add),
        ("passwd", "set a password", commands.user_passwd),
    ):
        sub = command(user, name, words, run, ["data_dir"])
        sub.add_argument("name", metavar="NAME")
        sub.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
        if name == "add":
            sub.add_argument("--admin", action="store_true", help="let them administer the server")
    for name, words, run in (
        ("disable", "shut a person out: sessions and API keys end at once", commands.user_disable),
        ("enable", "let a disabled person in again", commands.user_enable),
    ):
        command(user, name, words, run, ["data_dir"]).add_argument("name", metavar="NAME")
    command(user, "list", "list everybody", commands.user_list, ["data_dir"])
    command(user, "remove", "delete a person and all that is theirs", commands.user_remove, ["data_dir"]).add_argument(
        "name", metavar="NAME"
    )

    key = subs.add_parser("key", help="make, list and revoke API keys").add_subparsers(metavar="WHAT", required=True)
    for name, words, run, argument in (
        ("create", "make an API key; it is printed once, alone on standard output", commands.key_create, "NAME"),
        ("list", "list a person's keys", commands.key_list, "NAME"),
        ("revoke", "end a key", commands.key_revoke, "ID"),
    ):
        command(key, name, words, run, ["data_dir"]).add_argument(argument.lower(), metavar=argument)

    command(
        subs, "update", "train one person's next version, with a progress bar", commands.update, TRAINING
    ).add_argument("name", metavar="NAME")
    export = command(subs, "export", "write a version to a file", commands.export)
    export.add_argument("name", metavar="NAME")
    export.add_argument("--version", help="v1, v2, …; the active one when left out")
    export.add_argument("--format", default="peft", help="peft, merged, gguf or vllm (default: peft)")
    export.add_argument("--out", required=True, type=Path, metavar="FILE", help="the file to write")

    brought = command(subs, "import-feedback", "bring feedback given in another program", commands.import_feedback, [])
    brought.add_argument(
        "file", type=Path, metavar="FILE", help="JSON, JSON Lines or CSV; an export of Open WebUI's (docs/FAQ.md)"
    )
    brought.add_argument("--server", default="http://127.0.0.1:7860", metavar="URL", help="a running Mynah's address")
    brought.add_argument("--person", metavar="ID", help="whose, of an export with several people's ratings")
    adapter = command(
        subs,
        "import-adapter",
        "bring a LoRA adapter made elsewhere as a person's version; it is served once they choose it",
        commands.import_adapter,
        (*EVERYWHERE, "update_config"),
    )
    adapter.add_argument("name", metavar="NAME")
    adapter.add_argument("source", type=Path, metavar="FOLDER_OR_ZIP")

    for name, words, run in (
        ("backup", "write everything to one file, also beside a running server", commands.backup),
        ("restore", "unpack a backup into an empty data folder", commands.restore),
    ):
        command(subs, name, words, run, ["data_dir"]).add_argument("file", type=Path, metavar="FILE")
    command(subs, "doctor", "look the data folder over and say how to mend it", commands.doctor)
    for each in (user, key, subs):
        for sub in each.choices.values():
            _take_from_environment(sub)
    return parser, set(subs.choices)


def _take_from_environment(parser: argparse.ArgumentParser) -> None:
    """Options of a command that are no Config fields; those look there themselves, and flags when the command runs."""
    known = {field.name for field in fields(Config)}
    for action in parser._actions:
        if not action.option_strings or action.dest in (*known, "help"):
            continue
        action.help = f"{action.help} [{PREFIX}{action.dest.upper()}]"
        text = in_environment(action.dest)
        if text and action.nargs != 0:
            action.default, action.required = text, False  # argparse converts a default that is text


def _flag(name: str) -> bool:
    """A flag that the command line does not give, as the environment has it. Raises InvalidInput."""
    text = in_environment(name).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("", "0", "false", "no", "off"):
        return False
    raise InvalidInput(f"{PREFIX}{name.upper()} is {text!r}; it can be 1 or 0.", param=name)


def _add_option(parser: argparse.ArgumentParser, name: str) -> None:
    """An option out of a Config field."""
    field = {each.name: each for each in fields(Config)}[name]

    def typed(text: str) -> Any:
        try:
            return convert(name, text)
        except InvalidInput as error:
            raise argparse.ArgumentTypeError(error.message) from error

    default = default_of(field)
    shown = "" if default is None else f"; default: {default}"
    parser.add_argument(
        f"--{name.replace('_', '-')}",
        dest=name,
        type=typed,
        metavar=_METAVARS[str(field.type)],
        help=f"{field.metadata['help']} [{PREFIX}{name.upper()}{shown}]".replace("%", "%%"),
    )
