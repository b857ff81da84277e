package wasihttp

import "unsafe"

// The functions of wit/deps that are used, as the canonical ABI lowers them: handles are numbers, and what doesn't fit
// in one result is written to where the last argument points.

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-request.method
func requestMethod(request int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-request.path-with-query
func requestTarget(request int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-request.scheme
func requestScheme(request int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-request.authority
func requestAuthority(request int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-request.headers
func requestHeaders(request int32) (fields int32)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-request.consume
func requestConsume(request int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]incoming-request
func dropRequest(request int32)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-body.stream
func incomingBodyStream(body int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]incoming-body
func dropIncomingBody(body int32)

//go:wasmimport wasi:io/streams@0.2.12 [method]input-stream.blocking-read
func inputStreamBlockingRead(stream int32, bytes int64, result unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.12 [resource-drop]input-stream
func dropInputStream(stream int32)

//go:wasmimport wasi:http/types@0.2.12 [static]fields.from-list
func fieldsFromList(entries unsafe.Pointer, length uint32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]fields.entries
func fieldsEntries(fields int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]fields
func dropFields(fields int32)

//go:wasmimport wasi:http/types@0.2.12 [constructor]outgoing-response
func newResponse(fields int32) (response int32)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-response.set-status-code
func responseSetStatus(response, status int32) (failed int32)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-response.body
func responseBody(response int32, result unsafe.Pointer)

// All but three of its many arguments are those of an error, which is never sent.
//
//go:wasmimport wasi:http/types@0.2.12 [static]response-outparam.set
func outparamSet(out, failed, response, _ int32, _ int64, _, _, _ unsafe.Pointer, _ int32)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-body.write
func outgoingBodyWrite(body int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [static]outgoing-body.finish
func outgoingBodyFinish(body, hasTrailers, trailers int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]outgoing-body
func dropOutgoingBody(body int32)

//go:wasmimport wasi:http/types@0.2.12 [constructor]outgoing-request
func newOutgoingRequest(fields int32) (request int32)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-method
func outgoingRequestSetMethod(request, tag int32, other unsafe.Pointer, length uint32) (failed int32)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-scheme
func outgoingRequestSetScheme(request, isGiven, tag int32, other unsafe.Pointer, length uint32) (failed int32)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-authority
func outgoingRequestSetAuthority(request, isGiven int32, text unsafe.Pointer, length uint32) (failed int32)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-path-with-query
func outgoingRequestSetTarget(request, isGiven int32, text unsafe.Pointer, length uint32) (failed int32)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.body
func outgoingRequestBody(request int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]outgoing-request
func dropOutgoingRequest(request int32)

//go:wasmimport wasi:http/outgoing-handler@0.2.12 handle
func handleOutgoing(request, hasOptions, options int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]future-incoming-response.subscribe
func comingSubscribe(coming int32) (pollable int32)

//go:wasmimport wasi:http/types@0.2.12 [method]future-incoming-response.get
func comingGet(coming int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]future-incoming-response
func dropComing(coming int32)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-response.status
func responseStatus(response int32) (status int32)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-response.headers
func responseHeaders(response int32) (fields int32)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-response.consume
func responseConsume(response int32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]incoming-response
func dropIncomingResponse(response int32)

//go:wasmimport wasi:io/streams@0.2.12 [method]output-stream.check-write
func outputStreamCheckWrite(stream int32, result unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.12 [method]output-stream.write
func outputStreamWrite(stream int32, bytes unsafe.Pointer, length uint32, result unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.12 [method]output-stream.subscribe
func outputStreamSubscribe(stream int32) (pollable int32)

//go:wasmimport wasi:io/streams@0.2.12 [resource-drop]output-stream
func dropOutputStream(stream int32)

//go:wasmimport wasi:io/poll@0.2.12 [method]pollable.block
func pollableBlock(pollable int32)

//go:wasmimport wasi:io/poll@0.2.12 [resource-drop]pollable
func dropPollable(pollable int32)

//go:wasmimport wasi:io/error@0.2.12 [resource-drop]error
func dropError(err int32)
