use super::*;

fn redactor() -> Redactor {
    Redactor {
        enabled: true,
        headers: NameSet::new(defaults::HEADERS),
        cookies: NameSet::new(["*"]),
        query: NameSet::new(defaults::QUERY),
        form: NameSet::new(defaults::FIELDS),
        json: NameSet::new(defaults::FIELDS),
        request_body: true,
        response_body: true,
    }
}

fn header(name: &str, value: &str) -> String {
    let value = redactor().header(Side::Request, name.as_bytes(), value.as_bytes(), &mut Marks::default()).into_owned();
    String::from_utf8(value).unwrap()
}

fn body(content_type: &str, encoding: &str, bytes: &[u8]) -> (Option<String>, Marks) {
    let mut kept = BoundedBody::new(1 << 16);
    let _ = kept.count(bytes.len());
    kept.append(bytes.to_vec());
    let kind = BodyType { content_type: content_type.as_bytes(), content_encoding: encoding.as_bytes() };
    let mut marks = Marks::default();
    let text = match redactor().body(Side::Response, &kept, kind, 1 << 16, &mut marks) {
        Content::Kept { bytes, .. } => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Content::LeftOut(_) | Content::Empty => None,
    };
    (text, marks)
}

#[test]
fn default_lists_have_no_upper_case() {
    let lists = [&defaults::HEADERS[..], &defaults::QUERY, &defaults::FIELDS, &defaults::URL_HEADERS];
    assert!(lists.concat().iter().all(|name| *name == name.to_ascii_lowercase()));
}

#[test]
fn secret_headers_lose_their_value() {
    assert_eq!(header("authorization", "Bearer abc"), "REDACTED");
    assert_eq!(header("accept", "*/*"), "*/*");
}

#[test]
fn cookies_keep_their_names() {
    assert_eq!(header("cookie", "a=1; sid=x=y;b="), "a=REDACTED; sid=REDACTED;b=REDACTED");
    assert_eq!(header("set-cookie", "sid=x; Path=/; HttpOnly"), "sid=REDACTED; Path=/; HttpOnly");
    assert_eq!(header("cookie", "baresecret"), "REDACTED");
}

#[test]
fn urls_lose_secrets_in_query_fragment_and_user() {
    assert_eq!(
        header("referer", "https://u:p@h/x?a=1&token=t#access_token=z"),
        "https://REDACTED@h/x?a=1&token=REDACTED#access_token=REDACTED"
    );
    assert_eq!(header("location", "/cb?SAMLResponse=zzz"), "/cb?SAMLResponse=REDACTED");
    let mut marks = Marks::default();
    let path = redactor().url(Side::Request, b"/a?sig=1&b=2", &mut marks);
    assert_eq!(&*path, b"/a?sig=REDACTED&b=2");
    assert_eq!(marks.list(), ["request.query.sig"]);
}

#[test]
fn marks_name_the_place_and_never_the_value() {
    let (text, marks) = body("application/json", "", br#"{"token":"abc","Token":1}"#);
    assert_eq!(text.unwrap(), r#"{"token":"REDACTED","Token":"REDACTED"}"#);
    assert_eq!(marks.list(), ["response.body.token"]);
}

#[test]
fn marks_are_bounded() {
    let many: String = (0..500).map(|n| format!("sid{n}=x; ")).collect();
    let mut marks = Marks::default();
    redactor().header(Side::Request, b"cookie", many.as_bytes(), &mut marks);
    assert_eq!(marks.list().len(), MAX_MARKS);
}

#[test]
fn json_is_known_by_type_or_by_its_look() {
    for kind in
        ["application/json; charset=utf-8", "application/problem+JSON", "", "text/plain", "application/octet-stream"]
    {
        assert!(!body(kind, "", br#" {"password":"hunter2"}"#).0.unwrap().contains("hunter2"), "{kind}");
    }
    assert!(body("text/plain", "", b"the \"password\": hunter2").0.unwrap().contains("hunter2"));
}

#[test]
fn forms_are_redacted() {
    let (text, _) = body("application/x-www-form-urlencoded", "", b"user=a&password=b");
    assert_eq!(text.unwrap(), "user=a&password=REDACTED");
    let (text, _) = body("application/x-www-form-urlencoded", "", br#"{"password":"x"}"#);
    assert_eq!(text.unwrap(), r#"{"password":"REDACTED"}"#);
}

#[test]
fn what_cannot_be_read_is_left_out() {
    assert_eq!(body("application/json", "br", b"\x01\x02").0, None);
    assert_eq!(body("application/json", "gzip", b"not gzip").0, None);
    assert_eq!(body("multipart/form-data", "", b"--B").0, None);
    assert_eq!(body("application/json", "", b"\xff\xfe{\x00\"\x00").0, None);
}

#[test]
fn what_cannot_be_read_is_kept_when_nobody_looks() {
    let mut quiet = redactor();
    quiet.response_body = false;
    let mut kept = BoundedBody::new(10);
    let _ = kept.count(2);
    kept.append(vec![1, 2]);
    let kind = BodyType { content_type: b"", content_encoding: b"br" };
    let content = quiet.body(Side::Response, &kept, kind, 10, &mut Marks::default());
    assert_eq!(content, Content::Kept { bytes: Cow::Borrowed(&[1, 2]), decoded: None, cut: false });
}

#[test]
fn nothing_is_touched_when_switched_off() {
    let mut off = redactor();
    off.enabled = false;
    let mut marks = Marks::default();
    assert_eq!(&*off.header(Side::Request, b"authorization", b"x", &mut marks), b"x");
    assert_eq!(&*off.url(Side::Request, b"/?sig=1", &mut marks), b"/?sig=1");
    assert!(marks.list().is_empty());
}
