"""Shell text for what is kept on the system servers: release records, the audit log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from axon_tasks.commands import naming
from axon_tasks.commands.shell import Learnt, script

if TYPE_CHECKING:
    from collections.abc import Mapping

    from axon_tasks.config import Environment


def _state(environment: Environment) -> str:
    return naming.state_directory(environment.product, environment.name)


def text(record: Mapping[str, Any] | Learnt) -> str | Learnt:
    """A record as it is kept: one line of JSON."""
    return record if isinstance(record, Learnt) else json.dumps(record, sort_keys=True)


def write_release(environment: Environment, release: str, record: Mapping[str, Any] | Learnt) -> str:
    """Keep the release's record; with it the journal of its switch is done."""
    return script(
        "write_release", ("records",), state=_state(environment), release=release, record=text(record)
    )


def write_current(environment: Environment, release: str) -> str:
    """Note which release serves, where no switch does that."""
    return script("write_current", ("records",), state=_state(environment), release=release)


def note_release(environment: Environment, release: str, record: Mapping[str, Any] | Learnt) -> str:
    """Keep the record of a release that does not serve."""
    return script(
        "note_release", ("records",), state=_state(environment), release=release, record=text(record)
    )


def state(environment: Environment) -> str:
    """The slot that serves by the flag, the current release, and every record."""
    return script('tell_state "$state"', ("records",), state=_state(environment))


def audit_log(environment: Environment, lines: int) -> str:
    """The last lines of the audit log."""
    return script("tell_audit", ("records",), state=_state(environment), audit_lines=lines)


def settle_journal(environment: Environment) -> str:
    """Complete what the journal of a run that did not come back speaks of, and remove it."""
    return script("settle_journal", ("records",), state=_state(environment))


def audit(environment: Environment, record: Mapping[str, Any] | Learnt) -> str:
    """Note in the audit log who has done what."""
    keys = ("deployed_at", "deployed_by", "action", "id", "image", "message")
    if isinstance(record, Learnt):
        line: str = record
    else:
        line = " ".join(str(record[key]) for key in keys if record.get(key))
    return script("audit", ("records",), state=_state(environment), line=line)
