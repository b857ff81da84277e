"""The worker process: it is given jobs of the queue, one at a time."""

import json

from wasmhost_job import Bury, work
from wit_world.imports import queue
from wit_world.imports.queue import NewJob, Options, Unique, UniqueScope_Running
from wit_world.imports.types import Job


def mail(job: Job) -> None:
    recipients, subject = read(job.payload)
    if len(recipients) == 1:
        deliver(job, recipients[0], subject)
    else:
        # A job for each, so that the one who can't be reached isn't tried again together with all others.
        queue.enqueue_many(job.queue, [new_job(job, recipient, subject) for recipient in recipients])


def deliver(job: Job, recipient: str, subject: str) -> None:
    """Nothing is sent here. An address without an `@` is a `ValueError`, which nobody catches: the job is tried again."""
    name, domain = recipient.split("@")
    print(f"job {job.id}, attempt {job.attempt}: mail to {name} at {domain}: {subject}", flush=True)


def read(payload: bytes) -> tuple[list[str], str]:
    try:
        mail = json.loads(payload)
        to, subject = mail["to"], mail["subject"]
    except (ValueError, KeyError, TypeError) as error:
        raise Bury(f'expected {{"to": ..., "subject": ...}}: {error!r}')
    return to if isinstance(to, list) else [to], subject


def new_job(job: Job, recipient: str, subject: str) -> NewJob:
    return NewJob(
        payload=json.dumps({"to": recipient, "subject": subject}).encode(),
        options=Options(
            delay_ms=None,
            priority=None,
            # If this job is done twice, what waits or runs already isn't enqueued again.
            unique=Unique(f"{job.id} {recipient}", UniqueScope_Running()),
            attempts=None,
            content_type="application/json",
            metadata=[],
        ),
    )


Handler = work(mail)
