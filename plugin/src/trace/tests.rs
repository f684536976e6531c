use super::*;

const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn reads_and_writes_version_00() {
    let parent = TraceParent::parse(VALID.as_bytes()).unwrap();
    assert_eq!(parent.flags, 1);
    assert_eq!(parent.render(), VALID);
}

#[test]
fn refuses_what_the_recommendation_refuses() {
    for bad in [
        "",
        "00",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+f",
        "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
    ] {
        assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn reads_later_versions_by_their_first_fields() {
    let later = VALID.replacen("00", "cc", 1) + "-more";
    let parent = TraceParent::parse(later.as_bytes()).unwrap();
    assert_eq!(parent.render(), VALID);
}

#[test]
fn keeps_sampled_and_random_flags_and_clears_unknown_ones() {
    let parent = TraceParent::parse(VALID.replace("-01", "-fe").as_bytes()).unwrap();
    assert_eq!(parent.flags, 2);
}

#[test]
fn never_fails_on_arbitrary_bytes() {
    for seed in 0..5000u32 {
        let mut bytes = VALID.as_bytes().to_vec();
        let at = seed as usize % bytes.len();
        bytes[at] = (seed / 55) as u8;
        let _ = TraceParent::parse(&bytes);
        let _ = tracestate(&[&bytes], Some("s"));
    }
}

#[test]
fn finds_the_session_in_any_line_and_either_key() {
    assert_eq!(session_member(&[b"a=1", b" x-sp-session-id=s1 ,b=2"]), Some("s1"));
    assert_eq!(session_member(&[b"X-Softprobe-Session-Id=s2"]), Some("s2"));
    assert_eq!(session_member(&[b"x-sp-session-id="]), None);
}

#[test]
fn puts_the_session_first_and_keeps_the_others_in_order() {
    let lines: [&[u8]; 2] = [b"a=1,x-sp-session-id=old", b"b=2,x-sp-traceparent=00-1-2-01"];
    assert_eq!(tracestate(&lines, Some("new")).as_deref(), Some("x-sp-session-id=new,a=1,b=2"));
}

#[test]
fn drops_a_malformed_or_duplicated_list_whole() {
    assert_eq!(tracestate(&[b"a=1,=2"], None), None);
    assert_eq!(tracestate(&[b"a=1,a=2"], Some("s")).as_deref(), Some("x-sp-session-id=s"));
    assert_eq!(tracestate(&[b"A=1"], None), None);
}

#[test]
fn leaves_out_a_session_that_is_no_legal_value() {
    for bad in ["a,b=c", "a=b", "é", "ends ", ""] {
        assert_eq!(tracestate(&[b"k=v"], Some(bad)).as_deref(), Some("k=v"), "{bad}");
    }
}

#[test]
fn keeps_at_most_thirty_two_members() {
    let many: Vec<String> = (0..40).map(|n| format!("k{n}=v")).collect();
    let list = tracestate(&[many.join(",").as_bytes()], Some("s")).unwrap();
    assert_eq!(list.split(',').count(), 32);
    assert!(list.starts_with("x-sp-session-id=s,k0=v"));
}
