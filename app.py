"""Mynah. `python app.py` serves; `python app.py --help` tells the rest."""

from assistant.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
