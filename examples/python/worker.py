"""The worker process: it is given jobs of the queue, one at a time."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import queue
from wit_world.imports.queue import NewJob, Options, Unique, UniqueScope_Running
from wit_world.imports.types import Failure, Failure_Bury, Failure_Retry, Failure_RetryAfter, Job

FULL_WAIT_MS = 10_000


class Handler(exports.Handler):
    def handle(self, job: Job) -> None:
        """Returns when the job is done, and raises a Failure when it is not."""
        recipients, subject = read(job.payload)
        if len(recipients) == 1:
            print(f"job {job.id}, attempt {job.attempt}: mail to {recipients[0]}: {subject}", flush=True)
        else:
            # A job for each, so that the one who can't be reached isn't tried again together with all others.
            enqueue(job, [new_job(job, recipient, subject) for recipient in recipients])


def read(payload: bytes) -> tuple[list[str], str]:
    try:
        mail = json.loads(payload)
        to, subject = mail["to"], mail["subject"]
    except (ValueError, KeyError, TypeError) as error:
        # No later attempt can do better.
        raise Err(Failure_Bury(f'expected {{"to": ..., "subject": ...}}: {error!r}'))
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


def enqueue(job: Job, jobs: list[NewJob]) -> None:
    try:
        queue.enqueue_many(job.queue, jobs)
    except Err as error:
        raise Err(failure(error.value))


def failure(error: queue.Error) -> Failure:
    match error:
        case queue.Error_Full(text):
            return Failure_RetryAfter((FULL_WAIT_MS, text))
        case queue.Error_Unavailable(text):
            return Failure_Retry(text)
        case queue.Error_Denied(text) | queue.Error_Invalid(text):
            return Failure_Bury(text)
