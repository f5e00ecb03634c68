"""Stand-ins for programs of this machine, which write down how they were called."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Notes its arguments, its input and its login's folder, and then does what it is told to.
_PROGRAM = """\
#!/usr/bin/env python3
import json, os, stat, sys
folder = {folder!r}
config = os.environ.get("DOCKER_CONFIG", "")
seen = {{
    "words": [{name!r}, *sys.argv[1:]],
    "input": sys.stdin.read() if not sys.stdin.isatty() else "",
    "variables": {{name: os.environ.get(name) for name in {variables!r}}},
    "config": config,
    "mode": oct(stat.S_IMODE(os.stat(config).st_mode)) if config and os.path.isdir(config) else "",
    "files": {{
        name: open(os.path.join(config, name)).read() if os.path.isfile(os.path.join(config, name)) else None
        for name in (os.listdir(config) if config and os.path.isdir(config) else ())
    }},
}}
with open(folder + "/calls", "a") as calls:
    calls.write(json.dumps(seen) + "\\n")
for words, stdout, stderr, code in {answers!r}:
    if sys.argv[1 : 1 + len(words)] == words:
        sys.stdout.buffer.write(stdout.encode() if not stdout.startswith("@") else open(stdout[1:], "rb").read())
        sys.stderr.write(stderr)
        sys.exit(code)
sys.exit(0)
"""


@dataclass
class Programs:
    """A folder of stand-ins at the beginning of PATH."""

    folder: Path

    def add(
        self, name: str, *answers: tuple[Sequence[str], str, str, int], variables: Sequence[str] = ()
    ) -> None:
        """Have a program that answers by its first arguments.

        An answer is those arguments, what it says on stdout (`@FILE` for a file), what on stderr, and its exit code.
        """
        path = self.folder / name
        told = [(list(words), stdout, stderr, code) for words, stdout, stderr, code in answers]
        path.write_text(
            _PROGRAM.format(folder=str(self.folder), name=name, variables=tuple(variables), answers=told)
        )
        path.chmod(0o755)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """How they were called so far, the first one first."""
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def words(self) -> list[list[str]]:
        """With which words."""
        return [one["words"] for one in self.calls]
