"""Hostile answers of servers: through every step of a deploy and alone, the clean-up, jobs, and what reads local files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from axon_tasks.deploy import alone, background, cleaning, history, plan, rollback, runner
from axon_tasks.deploy.engine import Report, Result
from axon_tasks.deploy.preview import Nobody
from axon_tasks.deploy.problems import DeployFailedError, UnhealthyError
from axon_tasks.deploy.run import Deployment, Options
from axon_tasks.deploy.servers import Servers
from axon_tasks.errors import AxonError
from axon_tasks.lab.hostile import answers as told
from axon_tasks.lab.hostile.outcome import Outcome, attempt
from axon_tasks.lab.hostile.playing import CHANNEL, Player
from axon_tasks.lab.hostile.rendered import harmless
from axon_tasks.lab.hostile.values import is_printable
from axon_tasks.remote import jobs
from axon_tasks.report import cleanup as shown_cleanup
from axon_tasks.report import console, state
from axon_tasks.report import history as shown_history
from axon_tasks.report import jobs as shown_jobs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from axon_tasks.deploy.engine import Step
    from axon_tasks.lab.hostile.values import Canaries
    from axon_tasks.remote import Batch, BatchResult

#: A failure, a timeout, a lock that is taken, a switch that is broken, an unknown command, no end at all.
CODES: tuple[int | None, ...] = (1, 30, 54, 64, 66, 75, 124, 127, 137, 255, None)
_RUNS = "1764000000-1"


class Echo(Servers):
    """Servers that answer what they are told to.

    Args:
        listener: Is told about the progress.
        answers: What they print, by label.
        codes: Exit codes, by label.
    """

    def __init__(
        self, listener: console.Progress, answers: Mapping[str, str | bytes], codes: Mapping[str, int | None]
    ) -> None:
        super().__init__(Nobody(), listener)  # type: ignore[arg-type]  # on purpose no connections
        self.answers = answers
        self.codes = codes
        self.scripts: list[str] = []
        self.labels: list[str] = []

    def run(self, server: str, batch: Batch, **_options: object) -> BatchResult:
        """Answer; how long it may take is of no matter here."""
        self.scripts += [section.text for section in batch.sections]
        return told.answered(batch, server, self.answers, self.codes)

    def perform(self, step: Step) -> Report:
        """Perform one step as the engine does, one server after the other."""
        self.begun.setdefault(step.name, set()).update(step.servers)
        step.prepare()
        results = {}
        for server in step.servers:
            batch = step.batch(server)
            if batch is None:
                continue
            self.labels += batch.labels
            results[server] = self.run(server, batch)
            if step.listen is not None:
                for line in [
                    one for told in results[server].values() for one in told.stdout.split("\n")[:50]
                ]:
                    step.listen(server, line)
            step.check(server, results[server])
        report = step.learn(results)
        self._listener.finished(step.name, 1.0, report)
        return report


class Outputs(Player):
    """Plays servers to everything that changes something, and to what is told about it."""

    def __init__(self, outcome: Outcome, canaries: Canaries, folder: Path, most: int | None = None) -> None:
        super().__init__(outcome, canaries, folder, most)
        self._sound = told.sound(self._environment)

    def all(self) -> None:
        """Every answer in every place that reads one."""
        self.steps()
        self.codes()
        self.alone()
        self.rollback()
        self.cleanup()
        self.jobs()

    # --- a deploy ------------------------------------------------------------------------------------------------------

    def steps(self) -> None:
        """Every answer for every section of a deploy and of each step alone; the rest of the run goes on with it."""
        for label in self.labels():
            for name, text in self._fitting(label):
                attempt(self._outcome, CHANNEL, f"{label}: {name}", self.deploy, {label: text}, {})

    def codes(self) -> None:
        """Every section of a deploy, failed in every way, with a hostile message."""
        words = [one.text for one in self._canaries.hostile(("control", "template", "shell"))]
        for label in self.labels():
            for index, code in enumerate(CODES):
                text = words[index % len(words)]
                attempt(
                    self._outcome,
                    CHANNEL,
                    f"{label}: exit code {code}",
                    self.deploy,
                    {label: text},
                    {label: code},
                )
        for name, answer in self._fitting("logs"):
            spoilt = {"state": answer, "logs": answer}
            attempt(
                self._outcome,
                CHANNEL,
                f"diagnosis: {name}",
                self.deploy,
                spoilt,
                {"health": 1},
                tuple(spoilt),
            )

    def labels(self) -> list[str]:
        """The labels of all sections of a deploy in which nothing goes wrong."""
        run = self._run({}, {})
        for step in plan.steps(run):
            run.servers.perform(step)
        return list(dict.fromkeys(self._servers(run).labels))

    def deploy(
        self,
        answers: Mapping[str, str | bytes],
        codes: Mapping[str, int | None],
        late: Sequence[str] = (),
    ) -> None:
        """A deploy in which some sections say something else.

        Args:
            answers: What they say, by label.
            codes: How they end, by label.
            late: Labels that are hostile only in the diagnosis: an inspection has some of the same names.
        """
        early = {label: text for label, text in answers.items() if label not in late}
        run = self._run(early, codes)
        begun: list[Step] = []
        try:
            for step in plan.steps(run):
                begun.append(step)
                if late and step.name == "start":
                    self._servers(run).answers = {**self._sound, **answers}
                run.servers.perform(step)
            self._show(console.summary(run, 1.0))
        except AxonError as error:
            self._fail(run, error, begun)
        finally:
            if run.app:
                self._show(state.inspection(run))
            listener = run.listener
            assert isinstance(listener, console.Progress)
            assert isinstance(listener.stream, io.StringIO)
            self._show(listener.stream.getvalue())
            self._harmless(self._servers(run).scripts)

    def _fail(self, run: Deployment, error: AxonError, begun: list[Step]) -> None:
        """Take it back and tell it, as the program does.

        Raises:
            AxonError: What the program would end with.
        """
        told_error = runner.verdict(run, Result(errors=[error], begun=begun))
        assert told_error is not None, "a failure without an error"
        for one in told_error.errors if isinstance(told_error, DeployFailedError) else ():
            if isinstance(one, UnhealthyError):
                self._show(console.diagnosis(one.diagnosis))
        raise told_error

    def _run(self, answers: Mapping[str, str | bytes], codes: Mapping[str, int | None]) -> Deployment:
        listener = console.Progress(io.StringIO())
        servers = Echo(listener, {**self._sound, **answers}, codes)
        options = Options(tag="v2", wait=True, command="fab deploy", run_id=_RUNS)
        return Deployment(self._project, self._environment, servers, listener, options)

    @staticmethod
    def _servers(run: Deployment) -> Echo:
        assert isinstance(run.servers, Echo)
        return run.servers

    # --- alone ---------------------------------------------------------------------------------------------------------

    def alone(self) -> None:
        """Each step by itself, after an inspection that found something strange."""
        for name in alone.NAMES:
            for label in ("containers", "state", "upstream", "site", "ports", "docker"):
                for case, text in self._fitting(label):
                    attempt(
                        self._outcome,
                        CHANNEL,
                        f"steps.{name} {label}: {case}",
                        self._alone,
                        name,
                        {label: text},
                    )

    def _alone(self, name: str, answers: Mapping[str, str | bytes]) -> None:
        run = self._run(answers, {})
        try:
            for step in alone.steps(run, name):
                run.servers.perform(step)
        finally:
            if run.app:
                self._show(state.inspection(run))
            if run.files:
                state.staged(run)
            self._harmless(self._servers(run).scripts)

    # --- a rollback ----------------------------------------------------------------------------------------------------

    def rollback(self) -> None:
        """Every answer for everything by which a rollback is decided, and for the list of releases."""
        for label in ("releases", "started", "hold", "held", "containers", "state", "start"):
            for case, text in self._fitting(label):
                attempt(self._outcome, CHANNEL, f"rollback {label}: {case}", self._roll_back, {label: text})
        for label in ("releases", "audit"):
            for case, text in self._fitting(label):
                attempt(self._outcome, CHANNEL, f"history {label}: {case}", self._list, {label: text})

    def _roll_back(self, answers: Mapping[str, str | bytes]) -> None:
        run = self._run(answers, {})
        begun: list[Step] = []
        try:
            for step in rollback.steps(run):
                begun.append(step)
                run.servers.perform(step)
            self._show(console.summary(run, 1.0))
        except AxonError as error:
            self._fail(run, error, begun)
        finally:
            self._harmless(self._servers(run).scripts)

    def _list(self, answers: Mapping[str, str | bytes]) -> None:
        batch = history.look_batch(self._environment, 20)
        result = told.answered(batch, "edge1", {**self._sound, **answers}, {})
        past = history.read(self._environment, "edge1", result)
        found = history.entries(past.state, 20)
        for text in (shown_history.table(past, found), shown_history.events(past)):
            self._show(text)
        shown_history.as_json(past, found)

    # --- clean-up and jobs ---------------------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """Every answer for every section of a clean-up's look."""
        options = cleaning.Options(dry_run=True)
        batches = {
            server: cleaning.look(server, [self._environment], options, locks=True)
            for server in self._environment.servers
        }
        for label in dict.fromkeys(label for batch in batches.values() for label in batch.labels):
            for name, text in self._fitting(label):
                attempt(
                    self._outcome, CHANNEL, f"cleanup {label}: {name}", self._clean, batches, {label: text}
                )

    def _clean(self, batches: Mapping[str, Batch], answers: Mapping[str, str | bytes]) -> None:
        options = cleaning.Options(keep=1)
        looks = {
            server: told.answered(batch, server, {**self._sound, **answers}, {})
            for server, batch in batches.items()
        }
        decision = cleaning._Decision(  # noqa: SLF001  (it has no other door that needs no server)
            self._project, [self._environment], ["prod"], {}, looks, options
        )
        outcome = cleaning.Outcome(dry_run=True, environments=("prod",))
        outcome.items, outcome.left = decision.all(outcome.errors)
        self._show(shown_cleanup.text(outcome))
        self._show(shown_cleanup.as_json(outcome))
        scripts = []
        for server in self._environment.servers:
            mine = [one for one in outcome.items if one.server == server]
            batch = cleaning.removal(server, [self._environment], mine, options)
            scripts += [section.text for section in batch.sections]
        self._harmless(scripts)
        outcome.check()

    def jobs(self) -> None:
        """Every answer to a question about background jobs."""
        batches: dict[str, Batch] = {
            "list": background.list_batch(self._environment),
            "show": background.show_batch(self._environment, "retire-1", 5),
            "wait": background.wait_batch(self._environment, "retire-1", 5),
            "cancel": background.cancel_batch(self._environment, "retire-1"),
        }
        answers = [*self._fitting("job"), *_jobs(self._canaries)]
        for verb, batch in batches.items():
            for name, text in answers:
                attempt(self._outcome, CHANNEL, f"jobs.{verb}: {name}", self._job, batch, text, None)
            for code in CODES:
                attempt(
                    self._outcome,
                    CHANNEL,
                    f"jobs.{verb}: exit code {code}",
                    self._job,
                    batch,
                    "\x1b[2J",
                    code,
                )

    def _job(self, batch: Batch, text: str | bytes, code: int | None) -> None:
        codes = dict.fromkeys(batch.labels, code) if code is not None else {}
        result = told.answered(batch, "app1", dict.fromkeys(batch.labels, text), codes)
        found = jobs.parse(result["jobs"].stdout) if "jobs" in result else [background.read(result)]
        before = {"app1": background.read(result, "before")} if "before" in result else {}
        answer = background.Answer("prod", {"app1": found}, before)
        for made in (shown_jobs.table, shown_jobs.details, shown_jobs.as_json):
            self._show(made(answer))
        self._show(shown_jobs.cancelled(answer, self._environment))
        assert all(is_printable(one) for one in answer.unsuccessful), "a state that a terminal obeys"

    # --- helpers -------------------------------------------------------------------------------------------------------

    @staticmethod
    def _harmless(scripts: Sequence[str]) -> None:
        """What is made of an answer must stay a value in the next script."""
        wrong = harmless(scripts)
        assert not wrong, f"a script that is broken: {wrong[:300]!r}"


def _jobs(canaries: Canaries) -> list[tuple[str, str]]:
    """Jobs, one field wrong at a time."""
    fields = ["job", "retire-1", "done", "0", "1764000000", "1764000009", "1764000010"]
    found = [
        (f"field {at} {one.name}", f"{' '.join([*fields[:at], one.text, *fields[at + 1 :]])}\ntitle a\n| b\n")
        for at in range(1, len(fields))
        for one in canaries.hostile(("shell", "control", "unicode", "number", "size"))
    ]
    found += [
        (f"title {one.name}", f"{' '.join(fields)}\ntitle {one.text}\n| {one.text}\n")
        for one in canaries.hostile(("shell", "control", "unicode", "template"))
    ]
    found += [
        (f"times {value}", f"job a running - {value} {value} {value}\n| {value}\n")
        for value in ("999999999999999999", "000000000000000000", "-")
    ]
    return found
