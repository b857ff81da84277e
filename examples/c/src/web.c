// The web process, straight on the bindings that `wit-bindgen` makes of the interfaces.
//
// An instance serves one request after another: every handle that the host gave is dropped, and every list freed, or it
// would hold one more with each request.

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "web.h"

#define CHUNK_BYTES (64 * 1024)
#define PRIMES_BELOW_MAX 1000000

typedef exports_wasi_http_incoming_handler_own_incoming_request_t Request;
typedef exports_wasi_http_incoming_handler_own_response_outparam_t Out;

typedef struct {
  wasi_http_types_own_outgoing_body_t body;
  wasi_io_streams_own_output_stream_t stream;
} Writer;

// Whether the request is a HEAD, which has the head of GET's answer alone. An instance has one request at a time.
static bool is_head;

// Sends the head of a response; its body is to be written, and finished.
static Writer begin(Out out, uint16_t status) {
  static const char name[] = "content-type", value[] = "text/plain; charset=utf-8";
  wasi_http_types_tuple2_field_name_field_value_t entry = {
      .f0 = {.ptr = (uint8_t *)name, .len = sizeof name - 1},
      .f1 = {.ptr = (uint8_t *)value, .len = sizeof value - 1},
  };
  wasi_http_types_list_tuple2_field_name_field_value_t entries = {.ptr = &entry, .len = 1};
  wasi_http_types_own_fields_t headers;
  wasi_http_types_header_error_t refused;
  if (!wasi_http_types_static_fields_from_list(&entries, &headers, &refused)) abort();

  wasi_http_types_own_outgoing_response_t response = wasi_http_types_constructor_outgoing_response(headers);
  wasi_http_types_borrow_outgoing_response_t borrowed = wasi_http_types_borrow_outgoing_response(response);
  Writer writer;
  if (!wasi_http_types_method_outgoing_response_set_status_code(borrowed, status)) abort();
  if (!wasi_http_types_method_outgoing_response_body(borrowed, &writer.body)) abort();

  wasi_http_types_result_own_outgoing_response_error_code_t answer = {.is_err = false, .val.ok = response};
  wasi_http_types_static_response_outparam_set(out, &answer);
  if (!wasi_http_types_method_outgoing_body_write(wasi_http_types_borrow_outgoing_body(writer.body), &writer.stream)) {
    abort();
  }
  return writer;
}

// False if the client went away.
static bool put(Writer writer, uint8_t *bytes, size_t len) {
  wasi_io_streams_borrow_output_stream_t stream = wasi_io_streams_borrow_output_stream(writer.stream);
  if (is_head) return true;
  while (len > 0) {
    uint64_t room;
    wasi_io_streams_stream_error_t error;
    if (!wasi_io_streams_method_output_stream_check_write(stream, &room, &error)) {
      wasi_io_streams_stream_error_free(&error);
      return false;
    }
    if (room == 0) {
      wasi_io_poll_own_pollable_t ready = wasi_io_streams_method_output_stream_subscribe(stream);
      wasi_io_poll_method_pollable_block(wasi_io_poll_borrow_pollable(ready));
      wasi_io_poll_pollable_drop_own(ready);
      continue;
    }
    web_list_u8_t part = {.ptr = bytes, .len = len < room ? len : (size_t)room};
    if (!wasi_io_streams_method_output_stream_write(stream, &part, &error)) {
      wasi_io_streams_stream_error_free(&error);
      return false;
    }
    bytes += part.len;
    len -= part.len;
  }
  return true;
}

// A body that is dropped, not finished, is one that is cut off.
static void end(Writer writer, bool whole) {
  wasi_io_streams_output_stream_drop_own(writer.stream);
  if (!whole) {
    wasi_http_types_outgoing_body_drop_own(writer.body);
    return;
  }
  wasi_http_types_error_code_t error;
  if (!wasi_http_types_static_outgoing_body_finish(writer.body, NULL, &error)) {
    wasi_http_types_error_code_free(&error);
  }
}

static void answer(Out out, uint16_t status, const char *text) {
  Writer writer = begin(out, status);
  end(writer, put(writer, (uint8_t *)text, strlen(text)));
}

// How many primes there are below a number, by sieve.
static void primes(Out out, const char *query) {
  uint32_t below;
  if (sscanf(query, "below=%" SCNu32, &below) != 1 || below > PRIMES_BELOW_MAX) {
    answer(out, 400, "expected ?below=N, at most 1000000\n");
    return;
  }
  bool *composite = calloc((size_t)below + 1, sizeof *composite);
  if (!composite) abort();
  uint32_t count = 0;
  for (uint64_t n = 2; n < below; n++) {
    if (composite[n]) continue;
    count++;
    for (uint64_t multiple = n * n; multiple < below; multiple += n) composite[multiple] = true;
  }
  free(composite);
  char text[16];
  snprintf(text, sizeof text, "%" PRIu32 "\n", count);
  answer(out, 200, text);
}

static uint8_t rotate(uint8_t letter) {
  if (letter >= 'a' && letter <= 'z') return 'a' + (letter - 'a' + 13) % 26;
  if (letter >= 'A' && letter <= 'Z') return 'A' + (letter - 'A' + 13) % 26;
  return letter;
}

// Writes a body as it comes, however long it is. False if not all of it came, or went.
static bool pass_on(wasi_http_types_own_incoming_body_t body, Writer writer, bool rotated) {
  wasi_http_types_own_input_stream_t stream;
  if (!wasi_http_types_method_incoming_body_stream(wasi_http_types_borrow_incoming_body(body), &stream)) abort();
  bool whole = true, more = true;
  while (whole && more) {
    web_list_u8_t chunk;
    wasi_io_streams_stream_error_t error;
    if (wasi_io_streams_method_input_stream_blocking_read(wasi_io_streams_borrow_input_stream(stream), CHUNK_BYTES, &chunk,
                                                          &error)) {
      for (size_t i = 0; rotated && i < chunk.len; i++) chunk.ptr[i] = rotate(chunk.ptr[i]);
      whole = put(writer, chunk.ptr, chunk.len);
      web_list_u8_free(&chunk);
    } else {
      whole = error.tag == WASI_IO_STREAMS_STREAM_ERROR_CLOSED;
      more = false;
      wasi_io_streams_stream_error_free(&error);
    }
  }
  wasi_io_streams_input_stream_drop_own(stream);
  wasi_http_types_incoming_body_drop_own(body);
  return whole;
}

// Sends the request's body back with its letters rotated.
static void rot13(Request request, Out out) {
  wasi_http_types_own_incoming_body_t body;
  if (!wasi_http_types_method_incoming_request_consume(wasi_http_types_borrow_incoming_request(request), &body)) abort();
  Writer writer = begin(out, 200);
  end(writer, pass_on(body, writer, true));
}

// Sends a GET for a URL, which the formation has to grant, and waits for the head of the answer.
static bool ask(const char *url, wasi_http_types_own_incoming_response_t *response) {
  const char *rest = url ? strstr(url, "://") : NULL;
  if (!rest) return false;
  rest += 3;
  size_t authority_len = strcspn(rest, "/");
  const char *path = rest[authority_len] ? rest + authority_len : "/";
  bool tls = strncmp(url, "https:", 6) == 0;
  wasi_http_types_scheme_t scheme = {.tag = tls ? WASI_HTTP_TYPES_SCHEME_HTTPS : WASI_HTTP_TYPES_SCHEME_HTTP};
  web_string_t authority = {.ptr = (uint8_t *)rest, .len = authority_len};
  web_string_t target = {.ptr = (uint8_t *)path, .len = strlen(path)};

  wasi_http_types_own_outgoing_request_t request =
      wasi_http_types_constructor_outgoing_request(wasi_http_types_constructor_fields());
  wasi_http_types_borrow_outgoing_request_t borrowed = wasi_http_types_borrow_outgoing_request(request);
  if (!wasi_http_types_method_outgoing_request_set_scheme(borrowed, &scheme) ||
      !wasi_http_types_method_outgoing_request_set_authority(borrowed, &authority) ||
      !wasi_http_types_method_outgoing_request_set_path_with_query(borrowed, &target)) {
    wasi_http_types_outgoing_request_drop_own(request);
    return false;
  }
  wasi_http_types_own_future_incoming_response_t future;
  wasi_http_types_error_code_t refused;
  if (!wasi_http_outgoing_handler_handle(request, NULL, &future, &refused)) {
    wasi_http_types_error_code_free(&refused);
    return false;
  }
  wasi_http_types_borrow_future_incoming_response_t waiting = wasi_http_types_borrow_future_incoming_response(future);
  wasi_io_poll_own_pollable_t ready = wasi_http_types_method_future_incoming_response_subscribe(waiting);
  wasi_io_poll_method_pollable_block(wasi_io_poll_borrow_pollable(ready));
  wasi_io_poll_pollable_drop_own(ready);

  // The outer result says whether it was taken before, the inner one whether there is an answer.
  wasi_http_types_result_result_own_incoming_response_error_code_void_t result;
  bool answered = wasi_http_types_method_future_incoming_response_get(waiting, &result) && !result.is_err;
  if (answered && result.val.ok.is_err) {
    wasi_http_types_error_code_free(&result.val.ok.val.err);
    answered = false;
  }
  if (answered) *response = result.val.ok.val.ok;
  wasi_http_types_future_incoming_response_drop_own(future);
  return answered;
}

// Answers with the status and the body of another server's answer.
static void upstream(Out out) {
  wasi_http_types_own_incoming_response_t response;
  if (!ask(getenv("UPSTREAM"), &response)) {
    answer(out, 502, "the other server gave no answer\n");
    return;
  }
  wasi_http_types_borrow_incoming_response_t borrowed = wasi_http_types_borrow_incoming_response(response);
  char status[8];
  snprintf(status, sizeof status, "%" PRIu16 "\n", wasi_http_types_method_incoming_response_status(borrowed));
  wasi_http_types_own_incoming_body_t body;
  if (!wasi_http_types_method_incoming_response_consume(borrowed, &body)) abort();
  Writer writer = begin(out, 200);
  bool whole = put(writer, (uint8_t *)status, strlen(status));
  end(writer, pass_on(body, writer, false) && whole);
  wasi_http_types_incoming_response_drop_own(response);
}

void exports_wasi_http_incoming_handler_handle(Request request, Out out) {
  wasi_http_types_borrow_incoming_request_t borrowed = wasi_http_types_borrow_incoming_request(request);
  wasi_http_types_method_t method;
  wasi_http_types_method_incoming_request_method(borrowed, &method);
  is_head = method.tag == WASI_HTTP_TYPES_METHOD_HEAD;
  bool is_get = is_head || method.tag == WASI_HTTP_TYPES_METHOD_GET;
  bool is_post = method.tag == WASI_HTTP_TYPES_METHOD_POST;

  // Cut to what the routes need, with a zero at its end.
  char path[256] = "/";
  web_string_t target;
  if (wasi_http_types_method_incoming_request_path_with_query(borrowed, &target)) {
    snprintf(path, sizeof path, "%.*s", (int)target.len, (const char *)target.ptr);
    web_string_free(&target);
  }
  char *mark = strchr(path, '?');
  const char *query = mark ? mark + 1 : "";
  if (mark) *mark = '\0';

  if (is_get && strcmp(path, "/") == 0) {
    answer(out, 200, "Hello, world!\n");
  } else if (is_get && strcmp(path, "/primes") == 0) {
    primes(out, query);
  } else if (is_get && strcmp(path, "/upstream") == 0) {
    upstream(out);
  } else if (is_post && strcmp(path, "/rot13") == 0) {
    rot13(request, out);
  } else {
    answer(out, 404, "There is nothing here\n");
  }
  wasi_http_types_method_free(&method);
  wasi_http_types_incoming_request_drop_own(request);
}
