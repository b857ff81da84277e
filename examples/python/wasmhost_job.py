"""Between `wasmhost:job/handler` and a function that does a job. Take it along.

An exception that leaves a component is a trap: it costs the instance, and the third one buries the job. So nothing is
raised to the host but a `Failure`.
"""

import traceback
from collections.abc import Callable

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import queue
from wit_world.imports.types import Failure, Failure_Bury, Failure_Retry, Failure_RetryAfter, Job

FULL_WAIT_MS = 10_000


class Bury(Exception):
    """Raised by a handler: no later attempt can do better, so the job is dead at once."""


class RetryAfter(Exception):
    """Raised by a handler: the job is tried again after so many milliseconds."""

    def __init__(self, ms: int, message: str):
        super().__init__(message)
        self.ms = ms


def work(handle: Callable[[Job], None]) -> type[exports.Handler]:
    """A component's `Handler`, by which `handle` does its jobs.

    A job is done when `handle` returns. Whatever else it raises is logged, and the job is tried again after the usual
    backoff, as often as `attempts` says.
    """

    class Handler(exports.Handler):
        def handle(self, job: Job) -> None:
            try:
                handle(job)
            # `sys.exit` too would end the instance.
            except BaseException as error:
                failure = _failure_of(error)
            else:
                return
            raise Err(failure)

    return Handler


def _failure_of(error: BaseException) -> Failure:
    match error:
        case Bury():
            return Failure_Bury(str(error))
        case RetryAfter():
            return Failure_RetryAfter((max(0, error.ms), str(error)))
        # What `wasmhost:job/queue` refuses.
        case Err(value=queue.Error_Full(text)):
            return Failure_RetryAfter((FULL_WAIT_MS, text))
        case Err(value=queue.Error_Denied(text) | queue.Error_Invalid(text)):
            return Failure_Bury(text)
    traceback.print_exception(error)
    return Failure_Retry("".join(traceback.format_exception_only(error)).strip())
