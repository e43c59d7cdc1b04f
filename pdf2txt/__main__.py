"""``python -m pdf2txt PATH... --out DIR``: the library alone, without the store."""

from __future__ import annotations

import io
import signal
import sys

import typer

from pdf2txt.command import convert


def main() -> None:
    # File names need not be UTF-8; printing one must not end a conversion.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)  # ends it the same orderly way as Ctrl-C
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(convert)
    app(prog_name="python -m pdf2txt")


if __name__ == "__main__":
    main()
