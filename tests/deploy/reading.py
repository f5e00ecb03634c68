"""What a command that still runs has said so far, and what the help shows as examples."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from axon_tasks.tasks import namespace

if TYPE_CHECKING:
    from collections.abc import Callable

    from products import Product

PROJECT = Path(__file__).resolve().parents[2]


def until_it_says(running: subprocess.Popen[str], words: str) -> str:
    """Read what a command prints up to a line with these words."""
    said = ""
    assert running.stdout is not None
    for line in running.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(said)


class Said:
    """What was printed to a terminal so far, and its keyboard."""

    def __init__(self, terminal: int) -> None:
        self.text = ""
        self._terminal = terminal
        threading.Thread(target=self._collect, daemon=True).start()

    def __str__(self) -> str:
        return self.text

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._terminal, keys.encode())

    def _collect(self) -> None:
        """Read until nobody writes to it any more."""
        try:
            while piece := os.read(self._terminal, 65536):
                self.text += piece.decode(errors="replace")
        except OSError:  # Linux's way of saying that the other side is closed (EIO)
            return


def in_a_terminal(
    product: Product, *words: str, after: tuple[str, ...] = (), variables: dict[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], Said]:
    """Start a command in a terminal of its own, 30 lines of 200 characters; what it prints is collected."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 200, 0, 0))
    running = subprocess.Popen(
        product.command(*words, f"--hosts-file={product.write()}", *after),
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=PROJECT,
        env={**os.environ, "TERM": "xterm", **(variables or {})},
    )  # fmt: skip
    os.close(slave)
    return running, Said(master)


def wait_for(true: Callable[[], bool], said: object, seconds: float = 40) -> None:
    """Wait until something holds; what was said explains a failure."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, str(said)
        time.sleep(0.05)


def examples(name: str) -> list[str]:
    """The command lines of a task's examples, without what is said about them."""
    text = str(namespace()[name].__doc__)
    block = text[text.index("Examples:") :].partition("\n\n")[0].splitlines()[1:]
    lines = [re.split(r"\s+\(|\s{2,}", line.strip())[0] for line in block]
    return [line for line in lines if line]
