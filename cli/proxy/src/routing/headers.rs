//! Header values as routes format them, and what routes add and remove.

use spctl_host::{Exchange, HeaderList, Side};

use crate::config::{HeaderAction, HeaderToAdd};

/// A value with what is filled in for each request.
struct Format(Vec<Piece>);

enum Piece {
    Text(String),
    Request(String),
    Response(String),
    RemoteAddress,
    RemoteIp,
    LocalAddress,
    LocalIp,
    Protocol,
    ResponseCode,
    UpstreamHost,
    UpstreamCluster,
    RouteName,
}

impl Format {
    fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let (command, behind) = after.split_once('%').ok_or_else(|| format!("`{text}` ends within a command"))?;
            pieces.push(command_of(command)?);
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// Empty where nothing is known to fill in.
    fn fill(&self, exchange: &Exchange, request: Option<&HeaderList>, response: Option<&HeaderList>) -> Vec<u8> {
        let info = exchange.info();
        let mut out = Vec::new();
        let header =
            |list: Option<&HeaderList>, name: &str| list.and_then(|list| list.get(name.as_bytes()).map(<[u8]>::to_vec));
        for piece in &self.0 {
            let value = match piece {
                Piece::Text(text) => Some(text.clone().into_bytes()),
                Piece::Request(name) => header(request, name),
                Piece::Response(name) => header(response, name),
                Piece::RemoteAddress => info.downstream_remote.map(|address| address.to_string().into_bytes()),
                Piece::RemoteIp => info.downstream_remote.map(|address| address.ip().to_string().into_bytes()),
                Piece::LocalAddress => info.downstream_local.map(|address| address.to_string().into_bytes()),
                Piece::LocalIp => info.downstream_local.map(|address| address.ip().to_string().into_bytes()),
                Piece::Protocol => Some(info.protocol.name().as_bytes().to_vec()),
                Piece::ResponseCode => info.response_code.map(|code| code.to_string().into_bytes()),
                Piece::UpstreamHost => {
                    info.upstream.as_ref().and_then(|upstream| Some(upstream.address?.to_string().into_bytes()))
                }
                Piece::UpstreamCluster => exchange.route().and_then(|route| Some(route.cluster.clone()?.into_bytes())),
                Piece::RouteName => exchange.route().map(|route| route.name.clone().into_bytes()),
            };
            out.extend_from_slice(value.as_deref().unwrap_or(if self.0.len() == 1 { b"" } else { b"-" }));
        }
        out
    }
}

fn command_of(command: &str) -> Result<Piece, String> {
    let argument = |name: &str| command.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')').map(str::to_lowercase);
    Ok(match command {
        "" => Piece::Text("%".to_owned()),
        "DOWNSTREAM_REMOTE_ADDRESS" => Piece::RemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Piece::RemoteIp,
        "DOWNSTREAM_LOCAL_ADDRESS" => Piece::LocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Piece::LocalIp,
        "PROTOCOL" => Piece::Protocol,
        "RESPONSE_CODE" => Piece::ResponseCode,
        "UPSTREAM_HOST" => Piece::UpstreamHost,
        "UPSTREAM_CLUSTER" => Piece::UpstreamCluster,
        "ROUTE_NAME" => Piece::RouteName,
        _ => match (argument("REQ"), argument("RESP")) {
            (Some(name), _) => Piece::Request(name),
            (_, Some(name)) => Piece::Response(name),
            _ => return Err(format!("`%{command}%` is not known here")),
        },
    })
}

/// What one level of the routes does to messages of one direction.
pub(super) struct Changes {
    add: Vec<(HeaderToAdd, Format)>,
    remove: Vec<String>,
}

impl Changes {
    pub(super) fn new(add: &[HeaderToAdd], remove: &[String]) -> Result<Self, String> {
        let add = add.iter().map(|header| Ok((header.clone(), Format::parse(&header.value)?)));
        Ok(Self { add: add.collect::<Result<_, String>>()?, remove: remove.to_vec() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    /// Makes the changes; `side` is whose headers these are.
    pub(super) fn apply(&self, headers: &mut HeaderList, side: Side, exchange: &Exchange) {
        for (header, format) in &self.add {
            let value = match side {
                Side::Request => format.fill(exchange, Some(headers), None),
                Side::Response => format.fill(exchange, exchange.headers(Side::Request).as_deref(), Some(headers)),
            };
            let name = header.name.as_bytes();
            let there = headers.contains(name);
            match header.action {
                _ if value.is_empty() => {}
                HeaderAction::AppendIfExistsOrAdd => headers.add(name, &value),
                HeaderAction::AddIfAbsent if there => {}
                HeaderAction::AddIfAbsent => headers.add(name, &value),
                HeaderAction::OverwriteIfExists if !there => {}
                HeaderAction::OverwriteIfExists | HeaderAction::OverwriteIfExistsOrAdd => headers.set(name, &value),
            }
        }
        for name in &self.remove {
            headers.remove(name.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_known_or_refused() {
        assert!(Format::parse("a %REQ(:path)% b %PROTOCOL% 100%%").is_ok());
        for bad in ["%", "%NOPE%", "%REQ%"] {
            assert!(Format::parse(bad).is_err(), "{bad}");
        }
    }
}
