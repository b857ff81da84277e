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

// Sends the request's body back as it comes, however long it is, with its letters rotated.
static void rot13(Request request, Out out) {
  wasi_http_types_own_incoming_body_t body;
  wasi_http_types_own_input_stream_t stream;
  if (!wasi_http_types_method_incoming_request_consume(wasi_http_types_borrow_incoming_request(request), &body)) abort();
  if (!wasi_http_types_method_incoming_body_stream(wasi_http_types_borrow_incoming_body(body), &stream)) abort();

  Writer writer = begin(out, 200);
  bool whole = true, more = true;
  while (whole && more) {
    web_list_u8_t chunk;
    wasi_io_streams_stream_error_t error;
    if (wasi_io_streams_method_input_stream_blocking_read(wasi_io_streams_borrow_input_stream(stream), CHUNK_BYTES, &chunk,
                                                          &error)) {
      for (size_t i = 0; i < chunk.len; i++) chunk.ptr[i] = rotate(chunk.ptr[i]);
      whole = put(writer, chunk.ptr, chunk.len);
      web_list_u8_free(&chunk);
    } else {
      whole = error.tag == WASI_IO_STREAMS_STREAM_ERROR_CLOSED;
      more = false;
      wasi_io_streams_stream_error_free(&error);
    }
  }
  end(writer, whole);
  wasi_io_streams_input_stream_drop_own(stream);
  wasi_http_types_incoming_body_drop_own(body);
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
  } else if (is_post && strcmp(path, "/rot13") == 0) {
    rot13(request, out);
  } else {
    answer(out, 404, "There is nothing here\n");
  }
  wasi_http_types_method_free(&method);
  wasi_http_types_incoming_request_drop_own(request);
}
