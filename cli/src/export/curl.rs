//! One exchange as a curl command. What was redacted stays redacted.

use crate::exchange::{Encoding, Exchange};

/// Headers that curl sets itself or that belong to one connection.
const OWN: &[&str] = &["host", "content-length", "transfer-encoding", "connection", "expect", "accept-encoding"];

/// A command line, with a comment about what it cannot say.
pub(super) fn command(exchange: &Exchange) -> String {
    let summary = &exchange.summary;
    let mut text = format!("# {} {}\n", summary.id, summary.time);
    if !summary.redacted.is_empty() {
        text.push_str(&format!("# redacted: {}\n", summary.redacted.join(", ")));
    }
    let mut parts = vec!["curl".to_owned(), "-X".to_owned(), shell_word(&summary.method)];
    // The content coding was undone: the header would lie about the data.
    let decoded = exchange.request.body.as_ref().is_some_and(|body| body.decoded_from.is_some());
    for (name, value) in &exchange.request.headers {
        let left_out = OWN.contains(&name.as_str()) || (decoded && name == "content-encoding");
        if !left_out {
            parts.push("-H".into());
            parts.push(shell_word(&format!("{name}: {value}")));
        }
    }
    let mut pipe = String::new();
    if let Some(body) = exchange.request.body.as_ref().filter(|body| !body.data.is_empty()) {
        if body.truncated {
            text.push_str(&format!("# the body is cut: {} bytes passed\n", body.size));
        }
        if body.encoding == Encoding::Base64 {
            pipe = format!("echo {} | base64 -d | ", shell_word(&body.data));
            parts.extend(["--data-binary".into(), "@-".into()]);
        } else {
            // `--data-raw` takes a leading `@` as it is.
            parts.extend(["--data-raw".into(), shell_word(&body.data)]);
        }
    }
    parts.push(shell_word(&summary.url));
    text.push_str(&pipe);
    text.push_str(&parts.join(" "));
    text.push('\n');
    text
}

/// One shell word, whatever it holds.
pub fn shell_word(text: &str) -> String {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./-".contains(&b)) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word_for_the_shell() {
        assert_eq!(shell_word("it's $HOME `x`"), r"'it'\''s $HOME `x`'");
        assert_eq!((shell_word("POST"), shell_word("")), ("POST".into(), "''".into()));
    }
}
