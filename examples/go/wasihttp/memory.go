package wasihttp

import "unsafe"

// The host writes lists and strings to memory that it asks for by cabi_realloc, while a call of it is under way. A
// component must not call the host back meanwhile, which Go's garbage collector does: it reads the clock. So what the
// host asks for comes from memory that is there already, and is copied as soon as the call has returned.

const (
	// The longest list that is asked for at once, and the headers of a request, which the host bounds.
	arenaBytes = 512 << 10
	// The memory that the adapter between Go's WASI 0.1 and WASI 0.2 asks for once, before Go has started.
	earlyBytes = 256 << 10
)

var (
	arena [arenaBytes]byte
	used  uintptr
	early [earlyBytes]byte
	// How much of early is taken, for as long as the instance lives.
	earlyUsed uintptr
	started   bool
)

func init() {
	started = true
}

//go:wasmexport cabi_realloc
func cabiRealloc(_ unsafe.Pointer, oldBytes, align, bytes uint32) unsafe.Pointer {
	if oldBytes != 0 {
		// Only lists whose length isn't known beforehand are grown, of which these interfaces have none.
		panic("cabi_realloc: growing is not supported")
	}
	if !started {
		return take(early[:], &earlyUsed, uintptr(align), uintptr(bytes))
	}
	return take(arena[:], &used, uintptr(align), uintptr(bytes))
}

func take(from []byte, used *uintptr, align, bytes uintptr) unsafe.Pointer {
	start := (*used + align - 1) &^ (align - 1)
	if start+bytes > uintptr(len(from)) {
		panic("cabi_realloc: the host sent more than there is room for")
	}
	*used = start + bytes
	return unsafe.Add(unsafe.Pointer(&from[0]), start)
}

// The result of a call of the host: at most 64 bytes, aligned to 8.
type result [8]uint64

// There is one, since there is one call of the host at a time.
var returned result

// Clears what the last call has left, and says where the next one may write.
func area() unsafe.Pointer {
	used = 0
	returned = result{}
	return unsafe.Pointer(&returned)
}

func (r *result) byte(offset uintptr) byte {
	return *(*byte)(unsafe.Add(unsafe.Pointer(r), offset))
}

func (r *result) int32(offset uintptr) int32 {
	return *(*int32)(unsafe.Add(unsafe.Pointer(r), offset))
}

func (r *result) uint64(offset uintptr) uint64 {
	return *(*uint64)(unsafe.Add(unsafe.Pointer(r), offset))
}

// A list or string whose address and length are at this offset. It is gone at the next call of the host.
func (r *result) bytes(offset uintptr) []byte {
	return view(unsafe.Add(unsafe.Pointer(r), offset))
}

func view(at unsafe.Pointer) []byte {
	parts := (*[2]uint32)(at)
	if parts[1] == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(uintptr(parts[0]))), parts[1])
}
