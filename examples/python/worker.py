"""The worker process: it is given jobs of the queue, one at a time."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Failure_Bury, Failure_Retry, Job


class Handler(exports.Handler):
    def handle(self, job: Job) -> None:
        try:
            mail = json.loads(job.payload)
            recipient, subject = mail["to"], mail["subject"]
        except (ValueError, KeyError, TypeError) as error:
            # No later attempt can do better.
            raise Err(Failure_Bury(f'expected {{"to": ..., "subject": ...}}: {error!r}'))
        if job.attempt == 1 and mail.get("flaky"):
            raise Err(Failure_Retry("the mail server did not answer"))
        print(f"job {job.id}, attempt {job.attempt}: mail to {recipient}: {subject}", flush=True)
