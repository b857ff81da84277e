// The worker process: it is given jobs of the queue, one at a time.

#include <ctype.h>
#include <stdio.h>

#include "worker.h"

// Counts the words of a text, and says so in the log.
bool exports_wasmhost_job_handler_handle(exports_wasmhost_job_handler_job_t *job,
                                         exports_wasmhost_job_handler_failure_t *failure) {
  size_t words = 0;
  bool in_word = false, is_text = true;
  for (size_t i = 0; i < job->payload.len; i++) {
    uint8_t byte = job->payload.ptr[i];
    is_text = is_text && byte != 0;
    bool space = isspace(byte);
    words += !space && !in_word;
    in_word = !space;
  }
  if (is_text) {
    printf("job %.*s, attempt %u: %zu words\n", (int)job->id.len, (const char *)job->id.ptr, (unsigned)job->attempt, words);
    // What isn't flushed stays in this instance until the next job.
    fflush(stdout);
  } else {
    // No later attempt can do better.
    failure->tag = WASMHOST_JOB_TYPES_FAILURE_BURY;
    worker_string_dup(&failure->val.bury, "expected text, found a zero byte");
  }
  exports_wasmhost_job_handler_job_free(job);
  return is_text;
}
