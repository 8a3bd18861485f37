"""What Mynah says of itself on stderr: lines for people on a terminal, elsewhere a JSON object a line for programs.

time       ISO 8601, UTC
level      "INFO", "WARNING", "ERROR"
logger     what says it, "mynah.updates" for one
message    the sentence; never what people write
template   the sentence before ids and numbers were filled in: alike for all that tell the same
traceback  of a defect only
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TextIO

PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"
QUIETER = {"httpx": logging.WARNING, "bitsandbytes": logging.ERROR}


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "template": str(record.msg),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up(stream: TextIO) -> None:
    """Log to a stream from now on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(PLAIN) if stream.isatty() else JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name, level in QUIETER.items():
        logging.getLogger(name).setLevel(level)
