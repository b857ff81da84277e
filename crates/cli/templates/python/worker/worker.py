"""The worker process: `greet` is called for each job of the queue."""

from greeting import greeting
from wasmhost_job import Bury, work
from wit_world.imports.types import Job


def greet(job: Job) -> None:
    """The job is done when this returns. An exception has it tried again later, and `Bury` never again."""
    try:
        name = job.payload.decode().strip()
    except UnicodeDecodeError as error:
        raise Bury(f"expected a name as text: {error}")
    print(f"job {job.id}, attempt {job.attempt}: {greeting(name)}", end="", flush=True)


Handler = work(greet)
