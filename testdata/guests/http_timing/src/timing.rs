//! Names, classes and lines.

use serde_json::{Value, json};

/// Which way traffic flows through the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    Inbound,
    #[default]
    Outbound,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Inbound, Self::Outbound].into_iter().find(|known| known.name() == name)
    }

    /// The attribute `xds.listener_direction`: eight bytes, little-endian;
    /// 1 is inbound, 2 outbound.
    pub fn of_listener(attribute: &[u8]) -> Option<Self> {
        match i64::from_le_bytes(attribute.try_into().ok()?) {
            1 => Some(Self::Inbound),
            2 => Some(Self::Outbound),
            _ => None,
        }
    }
}

/// What the user wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// None: the listener's.
    pub direction: Option<Direction>,
    pub log: bool,
}

impl Settings {
    /// Reads the configuration; an error says what is wrong with it.
    pub fn parse(configuration: &[u8]) -> Result<Self, String> {
        if configuration.is_empty() {
            return Ok(Self::default());
        }
        let value: Value = serde_json::from_slice(configuration).map_err(|e| e.to_string())?;
        let direction = match &value["direction"] {
            Value::Null => None,
            Value::String(name) => {
                Some(Direction::from_name(name).ok_or("`direction` is neither `inbound` nor `outbound`")?)
            }
            _ => return Err("`direction` is no string".to_owned()),
        };
        Ok(Self { direction, log: value["log"] == true })
    }
}

/// The classes that are counted.
pub const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The place of a status among [`CLASSES`]; none for 1xx and for no answer.
pub fn class(status: u16) -> Option<usize> {
    usize::from(status / 100).checked_sub(2).filter(|at| *at < CLASSES.len())
}

pub fn histogram_name(direction: Direction) -> String {
    format!("wasm_http_{}_duration_ms", direction.name())
}

pub fn counter_name(direction: Direction, class: &str) -> String {
    format!("wasm_http_{}_responses_total_{class}", direction.name())
}

/// Characters of a path that are logged.
const PATH_MAX: usize = 200;

pub fn line(direction: Direction, ms: u64, method: &str, status: u16, authority: &str, path: &str) -> String {
    let path: String = path.chars().take(PATH_MAX).collect();
    json!({
        "dir": direction.name(), "dur_ms": ms, "method": method,
        "status": status, "authority": authority, "path": path,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_have_a_class() {
        let counted: Vec<_> = [0, 101, 200, 204, 302, 404, 503, 600].map(class).into();
        assert_eq!(counted, [None, None, Some(0), Some(0), Some(1), Some(2), Some(3), None]);
    }

    #[test]
    fn a_direction_is_configured_or_the_listeners() {
        assert_eq!(Settings::parse(b"").unwrap(), Settings::default());
        let settings = Settings::parse(br#"{"direction": "inbound", "log": true}"#).unwrap();
        assert_eq!((settings.direction, settings.log), (Some(Direction::Inbound), true));
        assert!(Settings::parse(br#"{"direction": "up"}"#).is_err());
        assert_eq!(Direction::of_listener(&1i64.to_le_bytes()), Some(Direction::Inbound));
        assert_eq!(Direction::of_listener(&0i64.to_le_bytes()), None);
        assert_eq!(Direction::of_listener(b"1"), None);
    }

    #[test]
    fn long_paths_are_cut() {
        let line = line(Direction::Inbound, 5, "GET", 200, "h", &"/\u{fc}".repeat(200));
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["path"].as_str().unwrap().chars().count(), PATH_MAX);
        assert_eq!((&line["dir"], &line["dur_ms"]), (&json!("inbound"), &json!(5)));
    }
}
