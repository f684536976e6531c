// A plugin in C++ on the bare ABI: no SDK, no library.
#define IMPORT(name) __attribute__((import_module("env"), import_name(#name))) extern "C"
#define EXPORT(name) __attribute__((export_name(#name))) extern "C"

IMPORT(proxy_add_header_map_value)
int proxy_add_header_map_value(int map, const char *key, unsigned long key_size, const char *value,
                               unsigned long value_size);

namespace {

constexpr int kResponseHeaders = 2;

struct Header {
  const char *key;
  unsigned long key_size;
  const char *value;
  unsigned long value_size;

  constexpr Header(const char *k, unsigned long ks, const char *v, unsigned long vs)
      : key(k), key_size(ks), value(v), value_size(vs) {}

  virtual int add() const { return proxy_add_header_map_value(kResponseHeaders, key, key_size, value, value_size); }
};

alignas(16) char heap[1 << 16];
unsigned long used = 0;

} // namespace

EXPORT(proxy_abi_version_0_2_1) void proxy_abi_version_0_2_1() {}

EXPORT(malloc) void *guest_malloc(unsigned long size) {
  used = (used + 15) & ~15ul;
  if (used + size > sizeof(heap)) {
    used = 0;
  }
  void *place = heap + used;
  used += size;
  return place;
}

EXPORT(proxy_on_context_create) void proxy_on_context_create(int, int) {}

EXPORT(proxy_on_response_headers) int proxy_on_response_headers(int, int, int) {
  static const Header header{"x-from", 6, "c++", 3};
  const Header *volatile which = &header;
  which->add();
  return 0;
}
