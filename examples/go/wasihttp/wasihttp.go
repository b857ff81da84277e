// Package wasihttp serves a net/http handler as a component that exports wasi:http/incoming-handler.
//
// An instance serves one request after another, so each handle of the host is dropped when its request is done.
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
	body := &requestBody{request: incoming}
	defer body.Close()
	w := &responseWriter{out: out, header: http.Header{}}
	defer w.end()

	request, err := readRequest(incoming, body)
	if err != nil {
		http.Error(w, "Bad Request", http.StatusBadRequest)
		return
	}
	w.isHead = request.Method == http.MethodHead
	defer func() {
		// As in net/http: what a handler panics with costs its request, not the process.
		if reason := recover(); reason != nil {
			log.Printf("panic serving %s: %v\n%s", request.URL.Path, reason, debug.Stack())
			w.fail()
		}
	}()
	handler.ServeHTTP(w, request)
}

var methods = [...]string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

func readRequest(incoming int32, body *requestBody) (*http.Request, error) {
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
	request.Header = readHeaders(incoming)
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

func readHeaders(incoming int32) http.Header {
	fields := requestHeaders(incoming)
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

// Reads the body as it arrives; the host is asked for it at the first read.
type requestBody struct {
	request, body, stream int32
	isOpen                bool
	err                   error
}

func (b *requestBody) Read(p []byte) (int, error) {
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

func (b *requestBody) open() {
	requestConsume(b.request, area())
	if returned.byte(0) != 0 {
		b.err = errors.New("the body was taken already")
		return
	}
	b.body = returned.int32(4)
	incomingBodyStream(b.body, area())
	b.stream = returned.int32(4)
	b.isOpen = true
}

func (b *requestBody) Close() error {
	if b.isOpen {
		dropInputStream(b.stream)
		dropIncomingBody(b.body)
		b.isOpen = false
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
