//! The `wasm` logger, which is the only one here.

use spctl_host::Level;

use super::AdminState;
use super::http::{Ask, Reply};

const USAGE: &str = "usage: /logging?<name>=<level> (change single level)\n\
    usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n\
    usage: /logging?level=<level> (change all levels)\n\
    levels: trace debug info warning error critical off\n";

/// Shows the level, changed first when the query says so.
pub(super) fn reply(state: &AdminState, ask: &Ask) -> Reply {
    match wanted(ask.query()) {
        Ok(level) => {
            if let Some(level) = level {
                state.blueprint.process.set_log_level(level);
            }
            Reply::text(200, format!("active loggers:\n  wasm: {}\n\n", state.blueprint.process.log_level()))
        }
        Err(why) => Reply::text(400, format!("error: {why}\n\n{USAGE}")),
    }
}

fn wanted(query: &[(String, String)]) -> Result<Option<Level>, &'static str> {
    let level = |text: &str| text.parse().map_err(|_| "unknown logger level");
    match query {
        [] => Ok(None),
        [(name, text)] if name == "level" || name == "wasm" => level(text).map(Some),
        [(name, text)] if name == "paths" => {
            let mut found = None;
            for pair in text.split(',').filter(|pair| !pair.is_empty()) {
                match pair.split_once(':') {
                    Some(("wasm", text)) => found = Some(level(text)?),
                    Some((_, text)) => drop(level(text)?),
                    None => return Err("empty logger name or empty logger level"),
                }
            }
            Ok(found)
        }
        [_] => Err("unknown logger name"),
        _ => Err("invalid parameter"),
    }
}
