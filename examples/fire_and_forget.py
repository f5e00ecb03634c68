"""Fire and forget: leave work running on the server, and come back for it or not."""

from axon_tasks import Batch
from axon_tasks.errors import AxonError
from axon_tasks.remote import guard, jobs
from axon_tasks.tasks.base import Context, task

guard.install()
PLACE = "/var/tmp/axon-example-jobs"  # noqa: S108 - on the server; each job has a directory of its own, mode 0700


@task(per_host=True, help={"job": "Id of the job, such as tidy-1."})
def tidy(c: Context, job: str) -> None:
    """Start a job that outlives this task.

    Examples:
        fab -r examples -c fire_and_forget -H app1 tidy --job=tidy-1
    """
    start = jobs.start_script(PLACE, job, "echo begun; sleep 2; echo removed 3 files")
    if not Batch("tidy").add(start, "start").run(c)["start"].ok:
        raise AxonError(f"job {job} was not started", hint="is there one of that name already?")
    print(f"job {job} runs on the server")


@task(per_host=True, help={"job": "Id of the job."})
def tidied(c: Context, job: str) -> None:
    """Wait for the job, on the server, and show it.

    Examples:
        fab -r examples -c fire_and_forget -H app1 tidied --job=tidy-1
    """
    wait = jobs.wait_script(PLACE, job, timeout=30)
    for one in jobs.parse(Batch("tidied").add(wait, "wait").run(c)["wait"].stdout):
        print(f"job {one.id} is {one.state} with exit code {one.exit_code}\n{one.log_tail}", end="")
