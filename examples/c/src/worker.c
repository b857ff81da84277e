// The worker process: it is given jobs of the queue, one at a time.

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "worker.h"

#define FULL_WAIT_MS 10000

typedef exports_wasmhost_job_handler_job_t Job;
typedef exports_wasmhost_job_handler_failure_t Failure;

static size_t count_words(worker_list_u8_t line) {
  size_t words = 0;
  bool in_word = false;
  for (size_t i = 0; i < line.len; i++) {
    bool space = isspace(line.ptr[i]);
    words += !space && !in_word;
    in_word = !space;
  }
  return words;
}

// Never again: no later attempt can do better.
static bool bury(Failure *failure, const char *why) {
  failure->tag = WASMHOST_JOB_TYPES_FAILURE_BURY;
  worker_string_dup(&failure->val.bury, why);
  return false;
}

// Puts a text on the queue as a job of its own, of which nothing more is said. False if that failed, with what is to
// become of the job that wanted it.
static bool enqueue(worker_string_t *queue, worker_list_u8_t text, Failure *failure) {
  wasmhost_job_queue_new_job_t job = {.payload = text};
  wasmhost_job_queue_receipt_t receipt;
  wasmhost_job_queue_error_t error;
  if (wasmhost_job_queue_enqueue(queue, &job, &receipt, &error)) {
    wasmhost_job_queue_receipt_free(&receipt);
    return true;
  }
  switch (error.tag) {
    case WASMHOST_JOB_QUEUE_ERROR_FULL:
      failure->tag = WASMHOST_JOB_TYPES_FAILURE_RETRY_AFTER;
      failure->val.retry_after.f0 = FULL_WAIT_MS;
      worker_string_dup(&failure->val.retry_after.f1, "the queue is full");
      break;
    case WASMHOST_JOB_QUEUE_ERROR_UNAVAILABLE:
      failure->tag = WASMHOST_JOB_TYPES_FAILURE_RETRY;
      worker_string_dup(&failure->val.retry, "the queue is unavailable");
      break;
    default:
      bury(failure, "the queue refuses the rest of the text");
  }
  wasmhost_job_queue_error_free(&error);
  return false;
}

// Counts the words of a text's first line and says so in the log. The rest goes back on the queue, as another job.
static bool count(Job *job, Failure *failure) {
  worker_list_u8_t line = job->payload;
  if (memchr(line.ptr, '\0', line.len)) return bury(failure, "expected text, found a zero byte");
  uint8_t *end = memchr(line.ptr, '\n', line.len);
  if (end) {
    line.len = (size_t)(end - line.ptr);
    worker_list_u8_t rest = {.ptr = end + 1, .len = job->payload.len - line.len - 1};
    // This first: if it fails, the line isn't counted twice.
    if (rest.len > 0 && !enqueue(&job->queue, rest, failure)) return false;
  }
  printf("job %.*s, attempt %u: %zu words\n", (int)job->id.len, (const char *)job->id.ptr, (unsigned)job->attempt,
         count_words(line));
  // Text that isn't flushed stays in this instance until the next job.
  fflush(stdout);
  return true;
}

bool exports_wasmhost_job_handler_handle(Job *job, Failure *failure) {
  bool done = count(job, failure);
  exports_wasmhost_job_handler_job_free(job);
  return done;
}
