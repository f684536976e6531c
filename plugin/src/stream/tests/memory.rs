//! The bound on exchanges under way.

use super::*;

#[test]
fn memory_for_streams_is_bounded_and_given_back() {
    let mut rig = Rig::new(r#"{"limits": {"streams_bytes": 65536}}"#);
    rig.host.set_buffer(Buffer::RequestBody, &[b'x'; 1 << 16]);
    let mut streams: Vec<_> = (0..2000).map(|_| rig.stream()).collect();
    for stream in &mut streams {
        stream.on_request_headers(false);
        stream.on_request_body(1 << 16, true);
    }
    rig.root.on_tick();
    let lost = rig.host.metric(crate::metrics::DROPPED_MEMORY);
    assert!(lost > 0 && rig.host.metric(CAPTURED) == lost, "{lost}");
    streams.iter_mut().for_each(Stream::finish);
    rig.sent();
    assert_eq!(rig.host.metric(CAPTURED), 2000);
    // Everything was given back: a whole body fits again.
    rig.host.set_buffer(Buffer::RequestBody, &[b'y'; 32 << 10]);
    let mut stream = rig.stream();
    stream.on_request_headers(false);
    stream.on_request_body(32 << 10, true);
    stream.on_response_headers(true);
    stream.finish();
    assert!(!is_true(&rig.sent()[0], "spctl.request.body.truncated"));
}
