// Marks every response with a header: a filter in Go on the bare ABI.
package main

import "unsafe"

const responseHeaders = 2

//go:wasmimport env proxy_replace_header_map_value
func replaceHeader(kind uint32, name, value string) uint32

func main() {}

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

// What the host was given to write to must outlive the collector.
var given = map[uint32][]byte{}

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) uint32 {
	bytes := make([]byte, size+1)
	address := uint32(uintptr(unsafe.Pointer(&bytes[0])))
	given[address] = bytes
	return address
}

//go:wasmexport proxy_on_context_create
func onContextCreate(context, parent uint32) {}

//go:wasmexport proxy_on_response_headers
func onResponseHeaders(context, count, end uint32) uint32 {
	replaceHeader(responseHeaders, "x-training", "envoy-wasm")
	return 0
}
