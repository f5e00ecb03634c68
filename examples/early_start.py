"""Early start, late wait: begin with what takes long, do the rest meanwhile."""

from axon_tasks import Batch
from axon_tasks.errors import AxonError
from axon_tasks.remote import guard
from axon_tasks.tasks.base import Context, task

guard.install()


@task(per_host=True)
def prepare(c: Context) -> None:
    """Load something large while smaller things are done.

    Examples:
        fab -r examples -c early_start -H app1 prepare
    """
    load = Batch("load").add("sleep 2; echo 120 MB", "download", timeout=60).start(c)

    settings = Batch("settings").add("echo production", "mode").run(c)
    print(f"mode is {settings['mode'].stdout.strip()}; loaded yet: {load.done()}")

    download = load.result()["download"]
    if not download.ok:
        raise AxonError(f"the download failed with exit code {download.exit_code}")
    print(f"loaded {download.stdout.strip()}")
