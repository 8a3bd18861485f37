"""`app.py serve`: from nothing to an answering server, and down again.

The data folder's lock and the port are taken before the slow imports, so a second server or a taken port is told at
once. SIGTERM and Ctrl-C end the server within ten seconds: replies under way are kept as far as they came, a running
update is paused.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import socket
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from assistant.config import Config
from assistant.lock import DataLock
from feedback.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from assistant.mynah import Mynah

GRACE_SECONDS = 2  # for requests under way, whose replies end within a token
PURPOSE = "app.py serve"


def serve(config: Config, given: dict[str, Any]) -> int:
    """Run until told to stop. Raises MynahError when it cannot start."""
    signal.signal(signal.SIGTERM, _leave)
    lock = DataLock(config.data_dir, PURPOSE)
    try:
        with _listen(config) as listener:
            address = _address(config.host, listener.getsockname()[1])
            lock.tell(purpose=PURPOSE, address=address)
            mynah = _open(config, lock)
            try:
                lock.tell(purpose=PURPOSE, address=address, base_id=mynah.engine.base_id)
                _run(mynah, listener, address)
            finally:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; closing takes some seconds
                mynah.close()
    except (KeyboardInterrupt, _Told):
        _vanish(lock)
    finally:
        lock.release()
    return 0


class _Told(BaseException):
    """SIGTERM came."""


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM as an exception, so that everything is closed in order."""
    raise _Told


def _vanish(lock: DataLock) -> NoReturn:
    """End the process, everything being closed and on disk.

    Taking a Python apart that holds torch and a model takes seconds, on a busy machine more than a supervisor waits.
    """
    lock.release()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _listen(config: Config) -> socket.socket:
    """The listening socket. Raises Conflict when the port is taken, InvalidInput for an address that is not ours."""
    try:
        family, _, _, _, where = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise InvalidInput(
            f"host is {config.host!r}, which is no address here: {error.strerror}.", param="host"
        ) from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(256)
    except OSError as error:
        listener.close()
        if isinstance(error, PermissionError):
            raise InvalidInput(f"Port {config.port} needs more rights; take one above 1023.", param="port") from error
        raise Conflict(
            f"{config.host}:{config.port} cannot be used: {str(error.strerror).lower()}. Choose another with "
            "--port, or 0 for a free one.",
            param="port",
        ) from error
    return listener


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _open(config: Config, lock: DataLock) -> Mynah:
    """All services, and on a first run the admin, whose password is shown this once."""
    gc.disable()  # what modules are made of is no garbage, and to look for some takes a quarter of their imports' time
    from assistant.mynah import Mynah

    gc.freeze()  # nor will it be any
    gc.enable()
    # Pages are imported while the base model is read from the disk.
    threading.Thread(target=importlib.import_module, args=("assistant.ui.app",), name="pages", daemon=True).start()
    mynah = Mynah.open(config, _say, lock=lock)
    try:
        if made := mynah.admins.first_admin():
            admin, password = made
            _say(f"Admin account: {admin.name}, password: {password} (shown only now)")
    except BaseException:
        mynah.close()
        raise
    return mynah


def _run(mynah: Mynah, listener: socket.socket, address: str) -> None:
    """Answer requests until a signal comes."""
    import uvicorn

    from assistant.api.app import create_app
    from assistant.api.punctual import PunctualProtocol, allow_many_connections

    class Server(uvicorn.Server):
        """Says so when it answers, and tells the updates when it ends."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _say(f"Mynah is at {address}")

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            mynah.updates.stop()  # the worker leaves while requests under way get their grace
            mynah.engine.leave_off()
            await super().shutdown(sockets)

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    allow_many_connections()
    settings = uvicorn.Config(
        create_app(mynah),
        log_config=None,
        access_log=False,
        http=PunctualProtocol,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    Server(settings).run(sockets=[listener])


def _say(line: str) -> None:
    print(line, flush=True, file=sys.stdout)
