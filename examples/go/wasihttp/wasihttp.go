// Package wasihttp serves a net/http handler as a component that exports wasi:http/incoming-handler.
//
// An instance serves one request after another, so each handle of the host is dropped when its request is done. A panic
// that leaves a component is a trap, which costs the instance, so it is caught here: one that comes before an answer is
// logged and answered by 500. (A goroutine's own panic ends the instance, as it ends a process.)
package wasihttp

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"unsafe"
)

// At most so many bytes of a body are asked for at once.
const chunkBytes = 64 << 10

var handler http.Handler = http.NotFoundHandler()

// Handle has h answer all requests. It is called from an init function: a component's main isn't.
func Handle(h http.Handler) {
	handler = h
}

//go:wasmexport wasi:http/incoming-handler@0.2.12#handle
func handle(incoming, out int32) {
	defer dropRequest(incoming)
	body := &incomingBody{consume: func() { requestConsume(incoming, area()) }}
	defer body.Close()
	w := &responseWriter{out: out, header: http.Header{}}

	request, err := readRequest(incoming, body)
	if err != nil {
		http.Error(w, "Bad Request", http.StatusBadRequest)
	} else {
		w.isHead = request.Method == http.MethodHead
		serve(w, request)
	}
	w.end()
}

// As in net/http, what a handler panics with costs its request, not the process.
func serve(w *responseWriter, request *http.Request) {
	defer func() {
		if reason := recover(); reason != nil {
			// By this one a handler says that it wants the answer cut off.
			if reason != http.ErrAbortHandler {
				log.Printf("panic serving %s: %v\n%s", request.URL.Path, reason, debug.Stack())
			}
			w.fail()
		}
	}()
	handler.ServeHTTP(w, request)
	// Here, since it panics where a header can't be sent.
	w.WriteHeader(http.StatusOK)
}

var methods = [...]string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

func readRequest(incoming int32, body *incomingBody) (*http.Request, error) {
	request := &http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: body, ContentLength: -1}

	requestMethod(incoming, area())
	if tag := int(returned.byte(0)); tag < len(methods) {
		request.Method = methods[tag]
	} else {
		request.Method = string(returned.bytes(4))
	}
	requestTarget(incoming, area())
	request.RequestURI = "/"
	if returned.byte(0) != 0 {
		request.RequestURI = string(returned.bytes(4))
	}
	requestAuthority(incoming, area())
	if returned.byte(0) != 0 {
		request.Host = string(returned.bytes(4))
	}
	request.Header = readFields(requestHeaders(incoming))
	if length, err := strconv.ParseInt(request.Header.Get("Content-Length"), 10, 64); err == nil {
		request.ContentLength = length
	}
	if request.Method == http.MethodGet || request.Method == http.MethodHead {
		request.Body = http.NoBody
	}
	var err error
	request.URL, err = url.ParseRequestURI(request.RequestURI)
	return request, err
}

// Takes the fields, and drops them.
func readFields(fields int32) http.Header {
	defer dropFields(fields)
	fieldsEntries(fields, area())
	entries := returned.bytes(0)
	// A list's length counts its items, of two lists each.
	items := unsafe.Slice((*[4]uint32)(unsafe.Pointer(unsafe.SliceData(entries))), len(entries))
	header := make(http.Header, len(items))
	for i := range items {
		name := view(unsafe.Pointer(&items[i][0]))
		value := view(unsafe.Pointer(&items[i][2]))
		header.Add(string(name), string(value))
	}
	return header
}

// Reads the body of a request, or of an answer, as it arrives. The host is asked for it at the first read.
type incomingBody struct {
	// Leaves the body, or that it was taken already.
	consume      func()
	body, stream int32
	isOpen       bool
	// Drops the handle that the body is of, after it.
	then func()
	err  error
}

func (b *incomingBody) Read(p []byte) (int, error) {
	if b.err == nil && !b.isOpen {
		b.open()
	}
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	inputStreamBlockingRead(b.stream, int64(min(len(p), chunkBytes)), area())
	if returned.byte(0) == 0 {
		return copy(p, returned.bytes(4)), nil
	}
	b.err = streamError(4)
	return 0, b.err
}

func (b *incomingBody) open() {
	b.consume()
	if returned.byte(0) != 0 {
		b.err = errors.New("the body was taken already")
		return
	}
	b.body = returned.int32(4)
	incomingBodyStream(b.body, area())
	b.stream = returned.int32(4)
	b.isOpen = true
}

func (b *incomingBody) Close() error {
	if b.isOpen {
		dropInputStream(b.stream)
		dropIncomingBody(b.body)
		b.isOpen = false
	}
	if b.then != nil {
		b.then()
		b.then = nil
	}
	b.err = http.ErrBodyReadAfterClose
	return nil
}

// The end of a stream, or what went wrong, by the error at this offset.
func streamError(offset uintptr) error {
	if returned.byte(offset) != 0 {
		return io.EOF
	}
	dropError(returned.int32(offset + 4))
	return io.ErrUnexpectedEOF
}
