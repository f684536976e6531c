//! Virtual hosts and routes of a user's bootstrap.

use serde_json::Value;
use spctl_proxy::{
    Answer, HeaderAction, HeaderChanges, HeaderMatch, HeaderToAdd, HostRewrite, Listener, PathRewrite, QueryMatch,
    Redirect, RetryOn, RetryPolicy, Route, RouteMatch, RouteUpgrade, TextMatch, VirtualHost,
};

use super::metadata;
use super::reader::{Node, Refused};

type Result<T> = std::result::Result<T, Refused>;

pub(super) fn route_config(node: Node<'_>, out: &mut Listener) -> Result<()> {
    node.without_effect(&["name"]);
    out.headers = header_changes(&node)?;
    out.virtual_hosts = node.objects("virtual_hosts")?.into_iter().map(virtual_host).collect::<Result<_>>()?;
    node.finish()
}

fn virtual_host(node: Node<'_>) -> Result<VirtualHost> {
    let out = VirtualHost {
        name: node.text("name")?.unwrap_or_default().to_owned(),
        domains: node.texts("domains")?,
        headers: header_changes(&node)?,
        retry: node.object("retry_policy")?.map(retry_policy).transpose()?,
        include_request_attempt_count: node.flag("include_request_attempt_count")?.unwrap_or(false),
        include_attempt_count_in_response: node.flag("include_attempt_count_in_response")?.unwrap_or(false),
        routes: node.objects("routes")?.into_iter().map(route).collect::<Result<_>>()?,
    };
    node.finish()?;
    Ok(out)
}

fn route(node: Node<'_>) -> Result<Route> {
    let mut out = Route::new("", "");
    node.text("name")?.unwrap_or_default().clone_into(&mut out.name);
    out.headers = header_changes(&node)?;
    out.metadata = metadata::of(&node)?;
    match node.object("match")? {
        Some(wanted) => matching(wanted, &mut out)?,
        None => return node.refused("match", "it is missing"),
    }
    if let Some(action) = node.object("route")? {
        forward(action, &mut out)?;
    } else if let Some(action) = node.object("redirect")? {
        out.answer = Some(Answer::Redirect(redirect(action)?));
    } else if let Some(action) = node.object("direct_response")? {
        out.answer = Some(direct_response(action)?);
    } else {
        return node.refused("route", "a `route`, `redirect` or `direct_response` is wanted");
    }
    node.finish()?;
    Ok(out)
}

fn matching(node: Node<'_>, out: &mut Route) -> Result<()> {
    let text = |value: &str| value.to_owned();
    out.matches = if let Some(prefix) = node.text("prefix")? {
        RouteMatch::Prefix(text(prefix))
    } else if let Some(path) = node.text("path")? {
        RouteMatch::Path(text(path))
    } else if let Some(prefix) = node.text("path_separated_prefix")? {
        RouteMatch::PathSeparatedPrefix(text(prefix))
    } else if let Some(pattern) = node.object("safe_regex")? {
        RouteMatch::Regex(regex(pattern)?)
    } else if node.value("connect_matcher").is_some() {
        RouteMatch::Connect
    } else {
        return Err((node.key.clone(), "a prefix, path or regex is wanted".into()));
    };
    for header in node.objects("headers")? {
        let Some(name) = header.text("name")? else { return header.refused("name", "it is missing") };
        let value = header.object("string_match")?.map(text_match).transpose()?;
        if header.flag("present_match")? == Some(false) {
            return header.refused("present_match", "use `invert_match` for a header that must not be there");
        }
        let invert = header.flag("invert_match")?.unwrap_or(false);
        out.match_headers.push(HeaderMatch { name: name.to_ascii_lowercase(), value, invert });
        header.finish()?;
    }
    for parameter in node.objects("query_parameters")? {
        let Some(name) = parameter.text("name")? else { return parameter.refused("name", "it is missing") };
        let value = parameter.object("string_match")?.map(text_match).transpose()?;
        parameter.without_effect(&["present_match"]);
        out.match_query.push(QueryMatch { name: name.to_owned(), value });
        parameter.finish()?;
    }
    node.finish()
}

fn text_match(node: Node<'_>) -> Result<TextMatch> {
    let exact = node.text("exact")?.map(|text| TextMatch::Exact(text.to_owned()));
    let prefix = node.text("prefix")?.map(|text| TextMatch::Prefix(text.to_owned()));
    let suffix = node.text("suffix")?.map(|text| TextMatch::Suffix(text.to_owned()));
    let contains = node.text("contains")?.map(|text| TextMatch::Contains(text.to_owned()));
    let pattern = node.object("safe_regex")?.map(regex).transpose()?.map(TextMatch::Regex);
    let Some(found) = exact.or(prefix).or(suffix).or(contains).or(pattern) else {
        return Err((node.key.clone(), "an exact, prefix, suffix, contains or regex match is wanted".into()));
    };
    node.finish()?;
    Ok(found)
}

/// Envoy's `RegexMatcher`: RE2 whatever else is said.
fn regex(node: Node<'_>) -> Result<String> {
    node.without_effect(&["google_re2"]);
    let Some(pattern) = node.text("regex")? else { return node.refused("regex", "it is missing") };
    node.finish()?;
    Ok(pattern.to_owned())
}

fn forward(node: Node<'_>, out: &mut Route) -> Result<()> {
    if let Some(weighted) = node.object("weighted_clusters")? {
        for cluster in weighted.objects("clusters")? {
            let Some(name) = cluster.text("name")? else { return cluster.refused("name", "it is missing") };
            let weight = cluster.number("weight")?.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(0);
            out.weighted_clusters.push((name.to_owned(), weight));
            cluster.finish()?;
        }
        weighted.finish()?;
    } else {
        match node.text("cluster")? {
            Some(cluster) => cluster.clone_into(&mut out.cluster),
            None => return node.refused("cluster", "it is missing"),
        }
    }
    if let Some(timeout) = node.duration("timeout")? {
        out.timeout = timeout;
    }
    out.idle_timeout = node.duration("idle_timeout")?;
    out.retry = node.object("retry_policy")?.map(retry_policy).transpose()?;
    out.path_rewrite = path_rewrite(&node)?;
    out.host_rewrite = match (node.text("host_rewrite_literal")?, node.flag("auto_host_rewrite")?) {
        (Some(host), _) => HostRewrite::Literal(host.to_owned()),
        (None, Some(true)) => HostRewrite::Auto,
        (None, _) => HostRewrite::Keep,
    };
    for upgrade in node.objects("upgrade_configs")? {
        let name = upgrade.text("upgrade_type")?.unwrap_or_default().to_owned();
        out.upgrades.push(RouteUpgrade { name, enabled: upgrade.flag("enabled")?.unwrap_or(true) });
        upgrade.finish()?;
    }
    node.finish()
}

fn path_rewrite(node: &Node<'_>) -> Result<PathRewrite> {
    if let Some(prefix) = node.text("prefix_rewrite")? {
        return Ok(PathRewrite::Prefix(prefix.to_owned()));
    }
    let Some(rewrite) = node.object("regex_rewrite")? else { return Ok(PathRewrite::Keep) };
    let Some(pattern) = rewrite.object("pattern")? else { return rewrite.refused("pattern", "it is missing") };
    let pattern = regex(pattern)?;
    let substitution = rewrite.text("substitution")?.unwrap_or_default().to_owned();
    rewrite.finish()?;
    Ok(PathRewrite::Regex { pattern, substitution })
}

fn retry_policy(node: Node<'_>) -> Result<RetryPolicy> {
    let mut out = RetryPolicy::default();
    for name in node.text("retry_on")?.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match RetryOn::from_name(name) {
            Some(condition) => out.on.push(condition),
            None => return node.refused("retry_on", format!("`{name}` is not supported")),
        }
    }
    if let Some(count) = node.number("num_retries")? {
        out.num_retries = u32::try_from(count).unwrap_or(u32::MAX);
    }
    if let Some(limit) = node.duration("per_try_timeout")? {
        out.per_try_timeout = limit;
    }
    let codes = node.value("retriable_status_codes").and_then(Value::as_array).into_iter().flatten();
    out.retriable_status_codes = codes.filter_map(|code| u16::try_from(code.as_u64()?).ok()).collect();
    node.finish()?;
    Ok(out)
}

fn redirect(node: Node<'_>) -> Result<Redirect> {
    let mut out = Redirect::default();
    if node.flag("https_redirect")? == Some(true) {
        out.scheme = Some("https".into());
    }
    if let Some(scheme) = node.text("scheme_redirect")? {
        out.scheme = Some(scheme.to_owned());
    }
    out.host = node.text("host_redirect")?.map(str::to_owned);
    out.port = node.number("port_redirect")?.and_then(|port| u16::try_from(port).ok());
    out.path = node.text("path_redirect")?.map(str::to_owned);
    out.path_rewrite = path_rewrite(&node)?;
    out.strip_query = node.flag("strip_query")?.unwrap_or(false);
    out.status = match node.text("response_code")? {
        None | Some("MOVED_PERMANENTLY") => 301,
        Some("FOUND") => 302,
        Some("SEE_OTHER") => 303,
        Some("TEMPORARY_REDIRECT") => 307,
        Some("PERMANENT_REDIRECT") => 308,
        Some(other) => return node.refused("response_code", format!("`{other}` is unknown")),
    };
    node.finish()?;
    Ok(out)
}

fn direct_response(node: Node<'_>) -> Result<Answer> {
    let Some(status) = node.number("status")?.and_then(|status| u16::try_from(status).ok()) else {
        return node.refused("status", "it is missing");
    };
    let mut body = String::new();
    if let Some(source) = node.object("body")? {
        match source.text("inline_string")? {
            Some(text) => text.clone_into(&mut body),
            None => return source.refused("inline_string", "only this is supported"),
        }
        source.finish()?;
    }
    node.finish()?;
    Ok(Answer::Direct { status, body })
}

fn header_changes(node: &Node<'_>) -> Result<HeaderChanges> {
    let added = |name| node.objects(name)?.into_iter().map(header_to_add).collect::<Result<Vec<_>>>();
    Ok(HeaderChanges {
        request_add: added("request_headers_to_add")?,
        request_remove: node.texts("request_headers_to_remove")?,
        response_add: added("response_headers_to_add")?,
        response_remove: node.texts("response_headers_to_remove")?,
    })
}

fn header_to_add(node: Node<'_>) -> Result<HeaderToAdd> {
    let Some(header) = node.object("header")? else { return node.refused("header", "it is missing") };
    let Some(name) = header.text("key")? else { return header.refused("key", "it is missing") };
    let value = header.text("value")?.unwrap_or_default().to_owned();
    header.finish()?;
    // `append: false` is the older spelling.
    let append = node.flag("append")?;
    let action = match node.text("append_action")? {
        None if append == Some(false) => HeaderAction::OverwriteIfExistsOrAdd,
        None | Some("APPEND_IF_EXISTS_OR_ADD") => HeaderAction::AppendIfExistsOrAdd,
        Some("ADD_IF_ABSENT") => HeaderAction::AddIfAbsent,
        Some("OVERWRITE_IF_EXISTS_OR_ADD") => HeaderAction::OverwriteIfExistsOrAdd,
        Some("OVERWRITE_IF_EXISTS") => HeaderAction::OverwriteIfExists,
        Some(other) => return node.refused("append_action", format!("`{other}` is unknown")),
    };
    node.finish()?;
    Ok(HeaderToAdd { name: name.to_ascii_lowercase(), value, action })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<Route> {
        route(Node::new("r".into(), value)?)
    }

    #[test]
    fn routes_redirects_and_direct_answers() {
        let forward = read(&json!({
            "match": {"safe_regex": {"google_re2": {}, "regex": "/a.*"}, "headers": [{"name": "X-A", "string_match": {"prefix": "b"}}]},
            "route": {"weighted_clusters": {"clusters": [{"name": "x", "weight": 3}]}, "timeout": "0s",
                      "retry_policy": {"retry_on": "5xx,reset", "num_retries": 2}},
        })).ok().unwrap();
        assert_eq!(forward.matches, RouteMatch::Regex("/a.*".into()));
        assert_eq!(forward.match_headers[0].name, "x-a");
        assert_eq!(forward.weighted_clusters, [("x".into(), 3)]);
        assert!(forward.timeout.is_zero());
        assert_eq!(forward.retry.unwrap().on, [RetryOn::ServerError, RetryOn::Reset]);
        let moved =
            read(&json!({"match": {"prefix": "/"}, "redirect": {"https_redirect": true, "response_code": "FOUND"}}));
        let Some(Answer::Redirect(moved)) = moved.ok().unwrap().answer else { panic!("a redirect") };
        assert_eq!((moved.scheme.as_deref(), moved.status), (Some("https"), 302));
        let direct =
            read(&json!({"match": {"path": "/x"}, "direct_response": {"status": 418, "body": {"inline_string": "t"}}}));
        assert_eq!(direct.ok().unwrap().answer, Some(Answer::Direct { status: 418, body: "t".into() }));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_key() {
        let refused = |value: Value| read(&value).err().unwrap().0;
        assert_eq!(
            refused(json!({"match": {"prefix": "/", "case_sensitive": false}, "route": {"cluster": "a"}})),
            "r.match.case_sensitive"
        );
        assert_eq!(refused(json!({"match": {"prefix": "/"}, "route": {"cluster_header": "x"}})), "r.route.cluster");
        assert_eq!(
            refused(json!({"match": {"prefix": "/"}, "route": {"cluster": "a", "hash_policy": []}})),
            "r.route.hash_policy"
        );
    }
}
