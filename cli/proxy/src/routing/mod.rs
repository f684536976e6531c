//! Routes, ready to be asked: which takes a request, and what it does to it.
//!
//! - `domain`: which virtual host a request is for
//! - `text`: conditions on paths, headers, queries
//! - `headers`: what is added and removed
//! - `redirect`: locations and rewritten paths

mod domain;
mod headers;
mod redirect;
mod text;

use std::sync::Arc;

use spctl_host::{Exchange, HeaderList, LocalReply, Metadata, RouteInfo, Side};

use self::domain::Domains;
use self::headers::Changes;
use self::redirect::Rewrite;
use self::text::Conditions;
use crate::config::{Answer, HeaderChanges, Listener, Redirect, RetryPolicy, Route, VirtualHost};

/// A listener's routes.
pub(crate) struct Table {
    domains: Domains,
    routes: Vec<Compiled>,
    /// By virtual host, where its routes begin and end.
    ranges: Vec<(usize, usize)>,
}

/// One route.
pub(crate) struct Compiled {
    pub(crate) config: Route,
    conditions: Conditions,
    rewrite: Rewrite,
    /// With the cluster of each, and the sum of weights up to it.
    infos: Vec<(u32, Arc<RouteInfo>)>,
    /// Of the route, the virtual host and the listener, in this order.
    request: Vec<Changes>,
    response: Vec<Changes>,
    redirect_rewrite: Rewrite,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) counts_attempts: bool,
    pub(crate) tells_attempts: bool,
}

impl Table {
    /// `cluster` tells a cluster's metadata and how many endpoints it has.
    pub(crate) fn new(listener: &Listener, cluster: impl Fn(&str) -> (Metadata, u64)) -> Result<Self, String> {
        let mut routes = Vec::new();
        let mut ranges = Vec::new();
        for host in &listener.virtual_hosts {
            let begin = routes.len();
            for route in &host.routes {
                let compiled = compile(listener, host, route, routes.len(), &cluster);
                routes.push(compiled.map_err(|why| format!("route `{}` of `{}`: {why}", route.name, host.name))?);
            }
            ranges.push((begin, routes.len()));
        }
        Ok(Self { domains: Domains::new(&listener.virtual_hosts), routes, ranges })
    }

    /// The route that takes a request.
    pub(crate) fn find(&self, headers: &HeaderList, random: impl FnOnce() -> u64) -> Option<Arc<RouteInfo>> {
        // Envoy matches nothing where a filter has removed this.
        headers.get(b"x-forwarded-proto")?;
        let host = self.domains.find(headers.get(b":authority").unwrap_or_default())?;
        let &(begin, end) = self.ranges.get(host)?;
        let tunnel = headers.get(b":method") == Some(b"CONNECT");
        let path = headers.get(b":path").or(tunnel.then_some(b""))?;
        let takes =
            |route: &&Compiled| route.conditions.is_for_tunnels() == tunnel && route.conditions.take(headers, path);
        let route = self.routes.get(begin..end)?.iter().find(takes)?;
        if let [(_, only)] = route.infos.as_slice() {
            return Some(Arc::clone(only));
        }
        let total = route.infos.last()?.0.max(1);
        let drawn = u32::try_from(random() % u64::from(total)).unwrap_or_default();
        route.infos.iter().find(|(below, _)| drawn < *below).map(|(_, info)| Arc::clone(info))
    }

    pub(crate) fn compiled(&self, info: &RouteInfo) -> Option<&Compiled> {
        self.routes.get(info.tag)
    }
}

fn compile(
    listener: &Listener,
    host: &VirtualHost,
    route: &Route,
    tag: usize,
    cluster: &impl Fn(&str) -> (Metadata, u64),
) -> Result<Compiled, String> {
    let info = |name: Option<&str>| {
        let (cluster_metadata, cluster_endpoints) = name.map(cluster).unwrap_or_default();
        Arc::new(RouteInfo {
            name: route.name.clone(),
            virtual_host: host.name.clone(),
            cluster: name.map(str::to_owned),
            metadata: route.metadata.clone(),
            cluster_metadata,
            cluster_endpoints,
            tag,
        })
    };
    let mut infos = Vec::new();
    let mut sum = 0;
    for (name, weight) in &route.weighted_clusters {
        sum += weight;
        infos.push((sum, info(Some(name))));
    }
    if infos.is_empty() {
        let cluster = route.answer.is_none().then_some(route.cluster.as_str());
        infos.push((1, info(cluster)));
    }
    let levels = [&route.headers, &host.headers, &listener.headers];
    let changes = |pick: &dyn Fn(&HeaderChanges) -> Result<Changes, String>| {
        let all = levels.iter().map(|level| pick(level)).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, String>(all.into_iter().filter(|changes| !changes.is_empty()).collect())
    };
    let redirect_rewrite = match &route.answer {
        Some(Answer::Redirect(redirect)) => Rewrite::new(&redirect.path_rewrite)?,
        _ => Rewrite::Keep,
    };
    Ok(Compiled {
        conditions: Conditions::new(&route.matches, &route.match_headers, &route.match_query)?,
        rewrite: Rewrite::new(&route.path_rewrite)?,
        infos,
        request: changes(&|level| Changes::new(&level.request_add, &level.request_remove))?,
        response: changes(&|level| Changes::new(&level.response_add, &level.response_remove))?,
        redirect_rewrite,
        retry: route.retry.clone().or_else(|| host.retry.clone()),
        counts_attempts: host.include_request_attempt_count,
        tells_attempts: host.include_attempt_count_in_response,
        config: route.clone(),
    })
}

impl Compiled {
    pub(crate) fn change_request(&self, headers: &mut HeaderList, exchange: &Exchange) {
        self.request.iter().for_each(|changes| changes.apply(headers, Side::Request, exchange));
    }

    pub(crate) fn change_response(&self, headers: &mut HeaderList, exchange: &Exchange) {
        self.response.iter().for_each(|changes| changes.apply(headers, Side::Response, exchange));
    }

    pub(crate) fn rewritten_path(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.rewrite.path(&self.config.matches, path)
    }

    /// What the route answers itself, if it does.
    pub(crate) fn answer(&self, headers: &mut HeaderList) -> Option<LocalReply> {
        let location = |redirect: &Redirect, headers: &HeaderList| {
            redirect::location(redirect, headers, headers.get(b":path").unwrap_or_default())
        };
        let mut reply = match self.config.answer.as_ref()? {
            Answer::Direct { status, body } => {
                let mut reply =
                    LocalReply { body: body.clone().into(), ..LocalReply::new(*status, "", "direct_response") };
                if *status == 201 {
                    let location = location(&Redirect::default(), headers);
                    reply.headers.push((b"location".to_vec(), location));
                }
                reply
            }
            Answer::Redirect(redirect) => {
                let path = headers.get(b":path").unwrap_or_default();
                if let Some(rewritten) = self.redirect_rewrite.path(&self.config.matches, path) {
                    headers.set_in_place(b":path", &rewritten);
                }
                let mut reply = LocalReply::new(redirect.status, "", "direct_response");
                reply.headers.push((b"location".to_vec(), location(redirect, headers)));
                reply
            }
        };
        reply.headers.shrink_to_fit();
        Some(reply)
    }
}
