//! Text and paths against what a route wants of them.

use regex_lite::Regex;
use spctl_host::HeaderList;

use crate::config::{HeaderMatch, QueryMatch, RouteMatch, TextMatch};

/// What a whole text must match, as RE2 does it.
pub(super) fn whole(pattern: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| error.to_string())
}

pub(super) enum Text {
    Plain(TextMatch),
    Regex(Regex),
}

impl Text {
    fn new(wanted: &TextMatch) -> Result<Self, String> {
        Ok(match wanted {
            TextMatch::Regex(pattern) => Self::Regex(whole(pattern)?),
            other => Self::Plain(other.clone()),
        })
    }

    fn takes(&self, text: &[u8]) -> bool {
        match self {
            Self::Regex(regex) => std::str::from_utf8(text).is_ok_and(|text| regex.is_match(text)),
            Self::Plain(TextMatch::Exact(wanted)) => text == wanted.as_bytes(),
            Self::Plain(TextMatch::Prefix(wanted)) => text.starts_with(wanted.as_bytes()),
            Self::Plain(TextMatch::Suffix(wanted)) => text.ends_with(wanted.as_bytes()),
            Self::Plain(TextMatch::Contains(wanted) | TextMatch::Regex(wanted)) => {
                wanted.is_empty() || text.windows(wanted.len()).any(|window| window == wanted.as_bytes())
            }
        }
    }
}

/// A route's conditions, ready to be asked.
pub(super) struct Conditions {
    path: RouteMatch,
    path_regex: Option<Regex>,
    headers: Vec<(HeaderMatch, Option<Text>)>,
    query: Vec<(QueryMatch, Option<Text>)>,
}

impl Conditions {
    pub(super) fn new(path: &RouteMatch, headers: &[HeaderMatch], query: &[QueryMatch]) -> Result<Self, String> {
        let text = |value: &Option<TextMatch>| value.as_ref().map(Text::new).transpose();
        let path_regex = match path {
            RouteMatch::Regex(pattern) => Some(whole(pattern)?),
            _ => None,
        };
        Ok(Self {
            path: path.clone(),
            path_regex,
            headers: headers.iter().map(|one| Ok((one.clone(), text(&one.value)?))).collect::<Result<_, String>>()?,
            query: query.iter().map(|one| Ok((one.clone(), text(&one.value)?))).collect::<Result<_, String>>()?,
        })
    }

    pub(super) fn take(&self, headers: &HeaderList, path: &[u8]) -> bool {
        let mut halves = path.splitn(2, |byte| *byte == b'?');
        let (bare, query) = (halves.next().unwrap_or_default(), halves.next());
        let on_path = match &self.path {
            // `OPTIONS *` begins with no prefix that begins with a slash.
            RouteMatch::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
            RouteMatch::Path(exact) => bare == exact.as_bytes(),
            RouteMatch::PathSeparatedPrefix(prefix) => {
                bare.strip_prefix(prefix.as_bytes()).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
            }
            RouteMatch::Regex(_) => {
                let regex = self.path_regex.as_ref();
                regex.is_some_and(|regex| std::str::from_utf8(bare).is_ok_and(|bare| regex.is_match(bare)))
            }
            RouteMatch::Connect => true,
        };
        on_path
            && self.headers.iter().all(|(wanted, text)| {
                let value = headers.joined(wanted.name.as_bytes());
                let found = value.is_some_and(|value| text.as_ref().is_none_or(|text| text.takes(&value)));
                found != wanted.invert
            })
            && self.query.iter().all(|(wanted, text)| {
                let value = query.and_then(|query| parameter(query, wanted.name.as_bytes()));
                value.is_some_and(|value| text.as_ref().is_none_or(|text| text.takes(value)))
            })
    }

    pub(super) fn is_for_tunnels(&self) -> bool {
        self.path == RouteMatch::Connect
    }
}

/// The first value of a parameter, as it stands in the query.
fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|byte| *byte == b'&').find_map(|pair| match pair.iter().position(|byte| *byte == b'=') {
        Some(at) if &pair[..at] == name => Some(&pair[at + 1..]),
        None if pair == name => Some(&[][..]),
        _ => None,
    })
}
