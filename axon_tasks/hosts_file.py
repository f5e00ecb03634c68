"""What is asked about `hosts.yml` before what checks the file is imported, which takes as long as connecting does."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from axon_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME = "hosts.yml"

#: The environment variable that names the file.
VARIABLE = "AXON_HOSTS"


def find_hosts_file(start: Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """Find `hosts.yml`: the file that AXON_HOSTS names, else the nearest one in a folder or above it.

    Args:
        start: Where to begin; default: the working directory.
        environ: Default: the environment of the process.

    Raises:
        ConfigurationError: There is none.
    """
    named = (os.environ if environ is None else environ).get(VARIABLE)
    if named:
        return Path(named)
    folder = (start or Path.cwd()).absolute()
    for candidate in (folder, *folder.parents):
        if (candidate / FILE_NAME).is_file():
            return candidate / FILE_NAME
    raise ConfigurationError(
        f"There is no {FILE_NAME} in {folder} or above it.",
        hint=f"Change to the project's folder, or name the file: --hosts-file=FILE or {VARIABLE}=FILE.",
    )


def environment_names(text: str) -> list[str]:
    """The names in `--env=one,two`, each once, in the order given."""
    return list(dict.fromkeys(name for name in re.split(r"[,\s]+", text) if name))
