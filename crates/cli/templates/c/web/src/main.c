// The web process: `exports_wasi_http_incoming_handler_handle` is called for each request. The bindings of `wasi:http`
// are in `bindings`, as `wit-bindgen c` makes them.
//
// An instance serves one request after another: every handle that the host gave is dropped, and every list freed.

#include <stdlib.h>
#include <string.h>

#include "greeting.h"
#include "web.h"

typedef exports_wasi_http_incoming_handler_own_incoming_request_t Request;
typedef exports_wasi_http_incoming_handler_own_response_outparam_t Out;

// Sends an answer of at most 4 KiB, which is how much a stream takes at least.
static void answer(Out out, uint16_t status, const char *text) {
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
  wasi_http_types_own_outgoing_body_t body;
  if (!wasi_http_types_method_outgoing_response_set_status_code(borrowed, status)) abort();
  if (!wasi_http_types_method_outgoing_response_body(borrowed, &body)) abort();
  wasi_http_types_result_own_outgoing_response_error_code_t sent = {.is_err = false, .val.ok = response};
  wasi_http_types_static_response_outparam_set(out, &sent);

  wasi_io_streams_own_output_stream_t stream;
  if (!wasi_http_types_method_outgoing_body_write(wasi_http_types_borrow_outgoing_body(body), &stream)) abort();
  web_list_u8_t bytes = {.ptr = (uint8_t *)text, .len = strlen(text)};
  wasi_io_streams_stream_error_t gone;
  bool whole = wasi_io_streams_method_output_stream_blocking_write_and_flush(wasi_io_streams_borrow_output_stream(stream),
                                                                              &bytes, &gone);
  if (!whole) wasi_io_streams_stream_error_free(&gone);
  wasi_io_streams_output_stream_drop_own(stream);
  wasi_http_types_error_code_t error;
  if (!whole) {
    wasi_http_types_outgoing_body_drop_own(body);
  } else if (!wasi_http_types_static_outgoing_body_finish(body, NULL, &error)) {
    wasi_http_types_error_code_free(&error);
  }
}

void exports_wasi_http_incoming_handler_handle(Request request, Out out) {
  char path[256] = "/";
  web_string_t target;
  if (wasi_http_types_method_incoming_request_path_with_query(wasi_http_types_borrow_incoming_request(request), &target)) {
    size_t len = target.len < sizeof path ? target.len : sizeof path - 1;
    memcpy(path, target.ptr, len);
    path[len] = '\0';
    web_string_free(&target);
  }
  char *query = strchr(path, '?');
  if (query) *query++ = '\0';
  if (strcmp(path, "/") == 0) {
    char text[300];
    greeting(query && strncmp(query, "name=", 5) == 0 ? query + 5 : NULL, text, sizeof text);
    answer(out, 200, text);
  } else {
    answer(out, 404, "There is nothing here.\n");
  }
  wasi_http_types_incoming_request_drop_own(request);
}
