package wasihttp

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"unsafe"
)

// Transport sends requests by wasi:http/outgoing-handler, to servers that the formation grants: net/http's own needs
// sockets, which Go's WASI has none of. It is an http.RoundTripper, so that &http.Client{Transport: Transport{}} works,
// with redirects and cookies. (A component with a Client holds net/http's own transport and its TLS too, of 5 MB.)
type Transport struct{}

// Get asks for a URL, without following redirects.
func Get(url string) (*http.Response, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return Transport{}.RoundTrip(request)
}

// RoundTrip sends the request's body, and returns when the head of the answer is there. A deadline isn't heeded: the
// host has one for the whole call.
func (Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	outgoing, err := newRequest(request)
	if err != nil {
		return nil, err
	}
	outgoingRequestBody(outgoing, area())
	body := returned.int32(4)
	handleOutgoing(outgoing, 0, 0, area())
	if returned.byte(0) != 0 {
		err := errorCode(8)
		dropOutgoingBody(body)
		return nil, err
	}
	coming := returned.int32(8)
	defer dropComing(coming)
	if err := sendBody(request, body); err != nil {
		return nil, err
	}
	ready := comingSubscribe(coming)
	pollableBlock(ready)
	dropPollable(ready)
	comingGet(coming, area())
	// An option of a result, of a result: it is there, nobody has taken it, and it is an answer.
	if returned.byte(0) == 0 || returned.byte(8) != 0 || returned.byte(16) != 0 {
		return nil, errorCode(24)
	}
	return readResponse(request, returned.int32(24)), nil
}

func newRequest(request *http.Request) (int32, error) {
	header := request.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	// The host knows it from the body; the other is the authority.
	header.Del("Content-Length")
	header.Del("Host")
	outgoing := newOutgoingRequest(newFields(header))

	tag := slices.Index(methods[:], request.Method)
	other, length := pointerTo(request.Method)
	if request.Method == "" {
		tag = 0
	} else if tag < 0 {
		tag = len(methods)
	}
	failed := outgoingRequestSetMethod(outgoing, int32(tag), other, length)
	scheme := int32(0)
	if request.URL.Scheme == "https" {
		scheme = 1
	}
	failed |= outgoingRequestSetScheme(outgoing, 1, scheme, nil, 0)
	authority := request.Host
	if authority == "" {
		authority = request.URL.Host
	}
	other, length = pointerTo(authority)
	failed |= outgoingRequestSetAuthority(outgoing, 1, other, length)
	other, length = pointerTo(request.URL.RequestURI())
	failed |= outgoingRequestSetTarget(outgoing, 1, other, length)
	if failed != 0 {
		dropOutgoingRequest(outgoing)
		return 0, fmt.Errorf("%s %s can't be sent", request.Method, request.URL)
	}
	return outgoing, nil
}

func pointerTo(text string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(text)), uint32(len(text))
}

func sendBody(request *http.Request, handle int32) error {
	body := &outgoingBody{}
	body.open(handle)
	defer body.end()
	if request.Body == nil {
		return nil
	}
	defer request.Body.Close()
	_, err := io.Copy(body, request.Body)
	if err == errGone {
		// The answer, or an error, says why.
		return nil
	}
	if err != nil {
		body.isCut = true
	}
	return err
}

func readResponse(request *http.Request, incoming int32) *http.Response {
	status := int(responseStatus(incoming))
	header := readFields(responseHeaders(incoming))
	length, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	if err != nil {
		length = -1
	}
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", status, http.StatusText(status)),
		StatusCode:    status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		ContentLength: length,
		Request:       request,
		Body: &incomingBody{
			consume: func() { responseConsume(incoming, area()) },
			then:    func() { dropIncomingResponse(incoming) },
		},
	}
}

// The cases of wasi:http/types.error-code that a client meets most; wit/deps/wasi-http.wit has all.
var errorCodes = map[byte]string{
	0: "DNS timeout", 1: "DNS error", 2: "destination not found", 3: "destination unavailable", 6: "connection refused",
	7: "connection terminated", 8: "connection timeout", 9: "read timeout", 10: "write timeout",
	12: "TLS protocol error", 13: "TLS certificate error", 15: "request denied: the formation doesn't grant it",
}

func errorCode(offset uintptr) error {
	code := returned.byte(offset)
	if name, isKnown := errorCodes[code]; isKnown {
		return fmt.Errorf("wasi:http: %s", name)
	}
	return fmt.Errorf("wasi:http: error code %d", code)
}
