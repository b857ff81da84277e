package wasihttp

import (
	"errors"
	"net/http"
	"unsafe"
)

// Sends what is written at once: first the head, so that the host isn't asked to hold a body that nobody takes yet.
type responseWriter struct {
	out    int32
	header http.Header
	body   outgoingBody
	isHead bool
	isSent bool
}

var errGone = errors.New("the other side went away")

func (w *responseWriter) Header() http.Header {
	return w.header
}

func (w *responseWriter) WriteHeader(status int) {
	if w.isSent {
		return
	}
	// The host knows it from the body, or sends that in chunks.
	w.header.Del("Content-Length")
	response := newResponse(newFields(w.header))
	if responseSetStatus(response, int32(status)) != 0 {
		panic("not an HTTP status")
	}
	responseBody(response, area())
	body := returned.int32(4)
	outparamSet(w.out, 0, response, 0, 0, nil, nil, nil, 0)
	w.body.open(body)
	w.isSent = true
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if !w.isSent {
		if w.header.Get("Content-Type") == "" {
			w.header.Set("Content-Type", http.DetectContentType(p))
		}
		w.WriteHeader(http.StatusOK)
	}
	if w.isHead {
		return len(p), nil
	}
	return w.body.Write(p)
}

// Answers for a handler that can't: by a 500, or by cutting off what it has begun.
func (w *responseWriter) fail() {
	if !w.isSent {
		// It may be a header that can't be sent.
		w.header = http.Header{}
		http.Error(w, "Internal Server Error", http.StatusInternalServerError)
		return
	}
	w.body.isCut = true
}

func (w *responseWriter) end() {
	w.body.end()
}

// The body of an answer, or of a request to another server.
type outgoingBody struct {
	body, stream int32
	isCut        bool
}

func (b *outgoingBody) open(body int32) {
	b.body = body
	outgoingBodyWrite(body, area())
	b.stream = returned.int32(4)
}

func (b *outgoingBody) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) && !b.isCut {
		outputStreamCheckWrite(b.stream, area())
		if returned.byte(0) != 0 {
			b.cut(8)
			break
		}
		room := returned.uint64(8)
		if room == 0 {
			ready := outputStreamSubscribe(b.stream)
			pollableBlock(ready)
			dropPollable(ready)
			continue
		}
		part := p[written:][:min(uint64(len(p)-written), room)]
		outputStreamWrite(b.stream, unsafe.Pointer(unsafe.SliceData(part)), uint32(len(part)), area())
		if returned.byte(0) != 0 {
			b.cut(4)
			break
		}
		written += len(part)
	}
	if b.isCut {
		return written, errGone
	}
	return written, nil
}

func (b *outgoingBody) cut(offset uintptr) {
	streamError(offset)
	b.isCut = true
}

func (b *outgoingBody) end() {
	dropOutputStream(b.stream)
	if b.isCut {
		// Not finishing a body is how WASI says that it is cut off.
		dropOutgoingBody(b.body)
		return
	}
	outgoingBodyFinish(b.body, 0, 0, area())
}

var (
	// Names and values one after another, and where each is: kept, so that the next response needs no new ones.
	text    []byte
	entries [][4]uint32
)

func newFields(header http.Header) int32 {
	text, entries = text[:0], entries[:0]
	for name, values := range header {
		for _, value := range values {
			start := uint32(len(text))
			text = append(append(text, name...), value...)
			entries = append(entries, [4]uint32{start, uint32(len(name)), start + uint32(len(name)), uint32(len(value))})
		}
	}
	base := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(text))))
	for i := range entries {
		entries[i][0] += base
		entries[i][2] += base
	}
	fieldsFromList(unsafe.Pointer(unsafe.SliceData(entries)), uint32(len(entries)), area())
	if returned.byte(0) != 0 {
		panic("these headers can't be sent")
	}
	return returned.int32(4)
}
