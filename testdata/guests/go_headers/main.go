// A plugin in Go on the bare ABI: what Go's own runtime asks of a host is part
// of what a host must have.
package main

import (
	"fmt"
	"os"
	"strings"
	"unsafe"
)

//go:wasmimport env proxy_log
func proxyLog(level uint32, text string) uint32

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBufferBytes(kind, start, length uint32, data unsafe.Pointer, size unsafe.Pointer) uint32

//go:wasmimport env proxy_get_header_map_value
func proxyGetHeaderMapValue(kind uint32, key string, data unsafe.Pointer, size unsafe.Pointer) uint32

//go:wasmimport env proxy_add_header_map_value
func proxyAddHeaderMapValue(kind uint32, key, value string) uint32

// What the host has been given and may still write to.
var given = map[uint32][]byte{}

var configuration string

func main() {}

func log(format string, arguments ...any) {
	proxyLog(2, fmt.Sprintf(format, arguments...))
}

// take makes a string of what the host has put at an address.
func take(address, size uint32) string {
	text := string(given[address][:size])
	delete(given, address)
	return text
}

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) uint32 {
	bytes := make([]byte, size+1)
	address := uint32(uintptr(unsafe.Pointer(&bytes[0])))
	given[address] = bytes
	return address
}

//go:wasmexport proxy_on_context_create
func onContextCreate(context, parent uint32) {}

//go:wasmexport proxy_on_vm_start
func onVMStart(context, size uint32) uint32 {
	fmt.Fprintln(os.Stderr, "standard error of Go")
	return 1
}

//go:wasmexport proxy_on_configure
func onConfigure(context, size uint32) uint32 {
	var address, length uint32
	if status := proxyGetBufferBytes(7, 0, size, unsafe.Pointer(&address), unsafe.Pointer(&length)); status != 0 {
		return 0
	}
	configuration = take(address, length)
	return 1
}

//go:wasmexport proxy_on_request_headers
func onRequestHeaders(context, count, end uint32) uint32 {
	var address, length uint32
	status := proxyGetHeaderMapValue(0, ":path", unsafe.Pointer(&address), unsafe.Pointer(&length))
	log("path %s (%d), end %d", take(address, length), status, end)
	// A goroutine of its own: the scheduler runs within the callback.
	words := make(chan string)
	go func() { words <- strings.ToUpper(configuration) }()
	proxyAddHeaderMapValue(0, "x-go", <-words)
	return 0
}

//go:wasmexport proxy_on_request_body
func onRequestBody(context, size, end uint32) uint32 {
	log("body %d, end %d", size, end)
	return 0
}

//go:wasmexport proxy_on_response_headers
func onResponseHeaders(context, count, end uint32) uint32 {
	if configuration == "beyond" {
		beyond := uintptr(0xfffffff0)
		log("read %d", *(*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&beyond))))
	}
	proxyAddHeaderMapValue(2, "x-go", "response")
	return 0
}

//go:wasmexport proxy_on_log
func onLog(context uint32) {
	log("logged %s", os.Getenv("WHO"))
}
