//! Guests in WebAssembly text, put together from what a test is about.

/// Host functions with their WebAssembly signatures, by short name.
const IMPORTS: &[(&str, &str, usize)] = &[
    ("log", "proxy_log", 3),
    ("log_level", "proxy_get_log_level", 1),
    ("get", "proxy_get_header_map_value", 5),
    ("add", "proxy_add_header_map_value", 5),
    ("set", "proxy_replace_header_map_value", 5),
    ("remove", "proxy_remove_header_map_value", 3),
    ("pairs", "proxy_get_header_map_pairs", 3),
    ("set_pairs", "proxy_set_header_map_pairs", 3),
    ("size", "proxy_get_header_map_size", 2),
    ("body", "proxy_get_buffer_bytes", 5),
    ("body_status", "proxy_get_buffer_status", 3),
    ("set_body", "proxy_set_buffer_bytes", 5),
    ("property", "proxy_get_property", 4),
    ("set_property", "proxy_set_property", 4),
    ("reply", "proxy_send_local_response", 8),
    ("resume", "proxy_continue_stream", 1),
    ("close", "proxy_close_stream", 1),
    ("call", "proxy_http_call", 10),
    ("tick", "proxy_set_tick_period_milliseconds", 1),
    ("get_data", "proxy_get_shared_data", 5),
    ("set_data", "proxy_set_shared_data", 5),
    ("register", "proxy_register_shared_queue", 3),
    ("resolve", "proxy_resolve_shared_queue", 5),
    ("enqueue", "proxy_enqueue_shared_queue", 3),
    ("dequeue", "proxy_dequeue_shared_queue", 3),
    ("define", "proxy_define_metric", 4),
    ("metric", "proxy_get_metric", 2),
    ("foreign", "proxy_call_foreign_function", 6),
    ("effective", "proxy_set_effective_context", 1),
    ("done", "proxy_done", 0),
    ("status", "proxy_get_status", 3),
    ("time", "proxy_get_current_time_nanoseconds", 1),
];

/// A guest in the making. Strings live from address 16 on; address 0 and 4 are
/// for out-parameters, 8 for a third; the allocator hands out from 64 KiB on.
pub(crate) struct Guest {
    abi: &'static str,
    data: String,
    data_end: usize,
    text: String,
    malloc: &'static str,
}

pub(crate) fn guest() -> Guest {
    Guest {
        abi: "proxy_abi_version_0_2_1",
        data: String::new(),
        data_end: 16,
        text: String::new(),
        malloc: "(local $p i32)
            (local.set $p (global.get $heap))
            (global.set $heap (i32.add (global.get $heap) (i32.and (i32.add (local.get $n) (i32.const 7)) (i32.const -8))))
            (local.get $p)",
    }
}

impl Guest {
    pub(crate) fn abi(mut self, marker: &'static str) -> Self {
        self.abi = marker;
        self
    }

    /// What `malloc` does with `$n` instead of handing out memory.
    pub(crate) fn malloc(mut self, body: &'static str) -> Self {
        self.malloc = body;
        self
    }

    /// More of the module. `"text"` in back quotes becomes address and length.
    pub(crate) fn with(mut self, text: &str) -> Self {
        let mut parts = text.split('`');
        let mut out = parts.next().unwrap_or_default().to_owned();
        while let (Some(literal), rest) = (parts.next(), parts.next().unwrap_or_default()) {
            let bytes: String = literal.bytes().map(|byte| format!("\\{byte:02x}")).collect();
            self.data += &format!("(data (i32.const {}) \"{bytes}\")\n", self.data_end);
            out += &format!("(i32.const {}) (i32.const {})", self.data_end, literal.len());
            self.data_end += literal.len();
            out += rest;
        }
        self.text += &out;
        self
    }

    /// A callback of this name with `$ctx` and up to four more arguments `$a`…
    pub(crate) fn on(self, name: &str, arguments: usize, result: bool, body: &str) -> Self {
        let names = ["ctx", "a", "b", "c", "d"];
        let params: String = names.iter().take(arguments).map(|name| format!("(param ${name} i32)")).collect();
        let result = if result { "(result i32)" } else { "" };
        self.with(&format!("(func (export \"{name}\") {params} {result} {body})\n"))
    }

    pub(crate) fn request_headers(self, body: &str) -> Self {
        self.on("proxy_on_request_headers", 3, true, body)
    }

    pub(crate) fn request_body(self, body: &str) -> Self {
        self.on("proxy_on_request_body", 3, true, body)
    }

    pub(crate) fn response_headers(self, body: &str) -> Self {
        self.on("proxy_on_response_headers", 3, true, body)
    }

    pub(crate) fn response_body(self, body: &str) -> Self {
        self.on("proxy_on_response_body", 3, true, body)
    }

    pub(crate) fn configure(self, body: &str) -> Self {
        self.on("proxy_on_configure", 2, true, body)
    }

    /// The module: only what it uses is imported.
    pub(crate) fn wat(&self) -> String {
        let everything = format!("{}{}", self.text, self.malloc);
        let used =
            |short: &str| everything.contains(&format!("${short} ")) || everything.contains(&format!("${short})"));
        let imports: String = IMPORTS
            .iter()
            .filter(|(short, ..)| *short == "log" || used(short))
            .map(|(short, name, arguments)| {
                let params = "i32 ".repeat(*arguments);
                format!("(import \"env\" \"{name}\" (func ${short} (param {params}) (result i32)))\n")
            })
            .collect();
        format!(
            r#"(module
            {imports}
            (memory (export "memory") 2)
            {data}
            (global $heap (mut i32) (i32.const 65536))
            (func $malloc (export "malloc") (param $n i32) (result i32) {malloc})
            (func (export "{abi}"))
            ;; Logs a text at info.
            (func $say (param $p i32) (param $n i32) (drop (call $log (i32.const 2) (local.get $p) (local.get $n))))
            ;; Logs a number in decimal.
            (func $num (param $v i32) (local $at i32)
                (local.set $at (i32.const 60000))
                (loop $digit
                    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
                    (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $v) (i32.const 10))))
                    (local.set $v (i32.div_u (local.get $v) (i32.const 10)))
                    (br_if $digit (local.get $v)))
                (call $say (local.get $at) (i32.sub (i32.const 60000) (local.get $at))))
            ;; Logs what the out-parameters at 0 and 4 point to.
            (func $out (call $say (i32.load (i32.const 0)) (i32.load (i32.const 4))))
            {text})"#,
            data = self.data,
            malloc = self.malloc,
            abi = self.abi,
            text = self.text,
        )
    }

    pub(crate) fn wasm(&self) -> Vec<u8> {
        wat::parse_str(self.wat()).unwrap()
    }
}
