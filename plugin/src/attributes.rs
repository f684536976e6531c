//! Names of our own span attributes: what the semantic conventions and
//! Softprobe's wire cannot say. Others may ignore all of them.

/// String: `inbound`, `outbound` or `unspecified`.
pub const DIRECTION: &str = "spctl.direction";
/// String array: name, value, name, value… of the request's pseudo headers in
/// their order, values redacted as everywhere. OTLP wire only.
pub const PSEUDO_HEADERS: &str = "spctl.request.pseudo_headers";
/// String array: names of the request headers, one for each line. Only there
/// when a repeated name has another one between its lines; else the order of
/// the `http.request.header.*` attributes is that of the headers.
pub const REQUEST_HEADER_ORDER: &str = "spctl.request.header_order";
/// As `REQUEST_HEADER_ORDER`, for the response.
pub const RESPONSE_HEADER_ORDER: &str = "spctl.response.header_order";
/// Bytes array, followed by the header's name: the exact values of a header
/// whose plain attribute is lossy (not UTF-8; on Softprobe's wire: repeated).
pub const REQUEST_HEADER_VALUES: &str = "spctl.request.header_values.";
/// As `REQUEST_HEADER_VALUES`, for the response.
pub const RESPONSE_HEADER_VALUES: &str = "spctl.response.header_values.";
/// Bytes array, followed by the trailer's name: its values.
pub const REQUEST_TRAILER: &str = "spctl.request.trailer.";
/// As `REQUEST_TRAILER`, for the response.
pub const RESPONSE_TRAILER: &str = "spctl.response.trailer.";
/// Bool, only when true: the recorded content is not the whole body. The size
/// on the wire is in `http.request.body.size`.
pub const REQUEST_BODY_TRUNCATED: &str = "spctl.request.body.truncated";
/// As `REQUEST_BODY_TRUNCATED`, for the response.
pub const RESPONSE_BODY_TRUNCATED: &str = "spctl.response.body.truncated";
/// String: the content coding that was removed from the recorded content.
pub const REQUEST_BODY_DECODED: &str = "spctl.request.body.decoded";
/// As `REQUEST_BODY_DECODED`, for the response.
pub const RESPONSE_BODY_DECODED: &str = "spctl.response.body.decoded";
/// String: why a body is left out: `content_encoding`, `undecodable`,
/// `multipart_boundary`, `charset`.
pub const REQUEST_BODY_LEFT_OUT: &str = "spctl.request.body.left_out";
/// As `REQUEST_BODY_LEFT_OUT`, for the response.
pub const RESPONSE_BODY_LEFT_OUT: &str = "spctl.response.body.left_out";
/// String, Softprobe's wire only: `utf8` or `base64`, the form of
/// `http.request.body`.
pub const REQUEST_BODY_ENCODING: &str = "spctl.request.body.encoding";
/// As `REQUEST_BODY_ENCODING`, for the response.
pub const RESPONSE_BODY_ENCODING: &str = "spctl.response.body.encoding";
/// String array: the redacted fields, as `request.header.authorization`.
pub const REDACTED: &str = "spctl.redacted";
/// Bool, only when true: the stream ended before its response did.
pub const ABORTED: &str = "spctl.aborted";
/// Bool, only when true: a tunnel (upgrade or CONNECT); its data is not recorded.
pub const UPGRADE: &str = "spctl.upgrade";
/// Int: nanoseconds from the span's start to the end of the request.
pub const REQUEST_END_NS: &str = "spctl.request.end_ns";
/// Int: nanoseconds from the span's start to the response headers.
pub const RESPONSE_START_NS: &str = "spctl.response.start_ns";
/// String: the upstream's address, for inbound exchanges; for outbound ones it
/// is `network.peer.address` and `network.peer.port`.
pub const UPSTREAM_ADDRESS: &str = "spctl.upstream.address";

/// String, in the answer to a lookup: the exchange or rule it comes from.
pub const INJECT_SOURCE: &str = "spctl.inject.source";
/// Bool, only when true, in a lookup: the request has a body that is not in it.
pub const INJECT_WITHOUT_BODY: &str = "spctl.inject.without_body";

/// Pairs of request and response names, for code that treats both sides alike.
pub(crate) struct SideNames {
    pub(crate) header: &'static str,
    pub(crate) order: &'static str,
    pub(crate) values: &'static str,
    pub(crate) trailer: &'static str,
    pub(crate) size: &'static str,
    pub(crate) content: &'static str,
    pub(crate) softprobe_content: &'static str,
    pub(crate) truncated: &'static str,
    pub(crate) decoded: &'static str,
    pub(crate) left_out: &'static str,
    pub(crate) encoding: &'static str,
}

pub(crate) const REQUEST: SideNames = SideNames {
    header: "http.request.header.",
    order: REQUEST_HEADER_ORDER,
    values: REQUEST_HEADER_VALUES,
    trailer: REQUEST_TRAILER,
    size: "http.request.body.size",
    content: "http.request.body.content",
    softprobe_content: "http.request.body",
    truncated: REQUEST_BODY_TRUNCATED,
    decoded: REQUEST_BODY_DECODED,
    left_out: REQUEST_BODY_LEFT_OUT,
    encoding: REQUEST_BODY_ENCODING,
};

pub(crate) const RESPONSE: SideNames = SideNames {
    header: "http.response.header.",
    order: RESPONSE_HEADER_ORDER,
    values: RESPONSE_HEADER_VALUES,
    trailer: RESPONSE_TRAILER,
    size: "http.response.body.size",
    content: "http.response.body.content",
    softprobe_content: "http.response.body",
    truncated: RESPONSE_BODY_TRUNCATED,
    decoded: RESPONSE_BODY_DECODED,
    left_out: RESPONSE_BODY_LEFT_OUT,
    encoding: RESPONSE_BODY_ENCODING,
};
