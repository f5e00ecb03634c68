"""Hostile answers of servers to those who only look: status, health, logs, stats, diff, the doctor, variables."""

from __future__ import annotations

import io
import json
import time
from typing import TYPE_CHECKING

from axon_tasks.deploy import comparing, doctor, logs, looking, stats, variables
from axon_tasks.lab.hostile import answers as told
from axon_tasks.lab.hostile.outcome import Outcome, attempt
from axon_tasks.lab.hostile.playing import CHANNEL, Player
from axon_tasks.report import comparing as shown_comparison
from axon_tasks.report import doctor as shown_doctor
from axon_tasks.report import health as shown_health
from axon_tasks.report import logs as shown_logs
from axon_tasks.report import stats as shown_stats
from axon_tasks.report import status as shown_status
from axon_tasks.report import variables as shown_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from axon_tasks.lab.hostile.values import Canaries
    from axon_tasks.remote import Batch

Answers = dict[str, "str | bytes"]


class Looks(Player):
    """Plays servers to everything that only looks."""

    def __init__(self, outcome: Outcome, canaries: Canaries, folder: Path, most: int | None = None) -> None:
        super().__init__(outcome, canaries, folder, most)
        sound = told.sound(self._environment)
        place = f"{self._environment.name}: "
        self._sound: Answers = {
            **sound,
            **{place + label: text for label, text in sound.items()},
            **_more(place),
        }

    def all(self) -> None:
        """Every answer in every place that reads one."""
        project, environment = self._project, self._environment
        self._every("status", lambda server: looking.look_batch(project, [environment], server), self._look)
        self._every("stats", lambda _server: stats.stats_batch([environment], "app1"), self._stats)
        self._every("doctor", lambda server: doctor.doctor_batch([environment], server), self._doctor)
        self._every("diff", lambda server: comparing.diff_batch(project, environment, server), self._diff)
        self._every("logs", lambda server: logs.ask_batch(environment, server), self._logs)
        for name, text in self._fitting("log"):
            data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
            attempt(self._outcome, CHANNEL, f"a log: {name}", self._lines, data)
            attempt(self._outcome, CHANNEL, f"an env file: {name}", self._variables, data)

    def _every(
        self, name: str, build: Callable[[str], Batch], work: Callable[[Mapping[str, Batch], Answers], None]
    ) -> None:
        """Each section of a look answered in each hostile way, and failed with that for a message."""
        batches = {server: build(server) for server in self._environment.servers}
        # What all is well with is not told as a failure.
        if not attempt(self._outcome, CHANNEL, f"{name}: sound", work, batches, self._sound):
            self._outcome.violate(CHANNEL, f"{name}: sound", "a failure although all is well")
        for label in dict.fromkeys(label for batch in batches.values() for label in batch.labels):
            for case, text in self._fitting(label):
                answers = {**self._sound, label: text}
                attempt(self._outcome, CHANNEL, f"{name} {label}: {case}", work, batches, answers)

    def _look(self, batches: Mapping[str, Batch], answers: Answers) -> None:
        seen = looking.unseen(self._project, self._environment)
        for server, batch in batches.items():
            looking.take(seen, server, told.answered(batch, server, answers, {}))
        self._show(shown_status.table([seen]), shown_health.text([seen]), *looking.unhealthy(seen))
        _parse(shown_status.as_json([seen]), shown_health.as_json([seen]))
        looking.check([seen])

    def _stats(self, batches: Mapping[str, Batch], answers: Answers) -> None:
        batch = next(iter(batches.values()))
        used = stats.Used(
            "prod", stats.read(self._environment, "app1", told.answered(batch, "app1", answers, {}))
        )
        self._show(shown_stats.table([used]))
        _parse(shown_stats.as_json([used]))

    def _doctor(self, batches: Mapping[str, Batch], answers: Answers) -> None:
        checks = [
            check
            for server, batch in batches.items()
            for check in doctor.judge(
                doctor.Answer(server, told.answered(batch, server, answers, {}), time.time(), 0.1),
                [self._environment],
            )
        ]
        self._show(shown_doctor.text(io.StringIO(), checks))
        _parse(shown_doctor.as_json(checks))

    def _diff(self, batches: Mapping[str, Batch], answers: Answers) -> None:
        known = comparing.Known({}, {}, {})
        for server, batch in batches.items():
            comparing.take(known, self._environment, server, told.answered(batch, server, answers, {}))
        found = comparing.conclude(self._project, self._environment, known, "")
        self._show(shown_comparison.text(io.StringIO(), found))
        _parse(shown_comparison.as_json(found))

    def _logs(self, batches: Mapping[str, Batch], answers: Answers) -> None:
        found, wanted = logs.Found(), logs.Wanted(services=("app", "access", "error"), age=60.0)
        for server, batch in batches.items():
            logs.note(found, self._environment, wanted, server, told.answered(batch, server, answers, {}))
        for source in found.sources:
            logs.command(self._environment, source, wanted)

    def _lines(self, data: bytes) -> None:
        for service in ("app", "access", "error"):
            stream = io.StringIO()
            reader = logs.Reader(logs.Source("app1", service), logs.Wanted())
            for line in [*reader.feed(b"2026-11-25T10:00:00.000000000Z " + data), *reader.end()]:
                shown_logs.Lines(stream, timestamps=True).write(line)
                _parse(shown_logs.document(line))
            self._show(stream.getvalue())

    def _variables(self, data: bytes) -> None:
        files = variables.Files(self._environment)
        text = data.decode("utf-8", errors="replace")
        files.files["app1"] = variables.parsed("app1", "/srv/env", text)
        self._show(shown_variables.table(files))
        _parse(shown_variables.as_json(files))


def _more(place: str) -> Answers:
    """What a healthy server says to those who look, beside what it says in a deploy."""
    details = {
        "id": told.ID,
        "status": "running",
        "started": "2026-11-25T10:00:00Z",
        "restarts": 0,
        "health": "",
    }
    reply = "took_ms=10\nstatus=200\ngood=yes\ntold=HTTP 200\nupstream=127.0.0.1:30000\nsaid=ok\n"
    usage = {
        "id": told.ID,
        "cpu": "0.1%",
        "memory": "1MiB / 2GiB",
        "processes": "3",
        "network": "1kB / 2kB",
        "disk": "",
    }
    return {
        f"{place}look": f"now=1795600860\ncontainer={json.dumps(details)}\nanswer={told.ID}\n{reply}",
        f"{place}through": f"answer=nginx\n{reply}",
        f"{place}lock": "",
        f"{place}listens": "listens=80 nginx\n",
        f"{place}ports": "30000 30001\n",
        "prod": f"restarts={told.ID} 0\nstats={json.dumps(usage)}\n",
        "host": f"epoch={int(time.time())}\nuser=root\nclient=curl\n",
        "root": "0\n",
        f"{place}writable": "writable=yes\n",
        "variables": f"environment={'c' * 64}\n",
        "clock": "1795600860 +0000\n",
    }


def _parse(*texts: str) -> None:
    """What programs read must be JSON."""
    for text in texts:
        json.loads(text)
