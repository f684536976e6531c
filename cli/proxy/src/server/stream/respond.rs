//! What a chain puts out, on its way: the request upstream, the response down.

use std::rc::Rc;

use spctl_host::{Body, HeaderKind, HeaderList, LocalReply, Output, Protocol, Side};

use super::super::downstream::Downstream;
use super::super::retry::Retry;
use super::super::rules;
use super::{Close, Stream, Upgrade, flags};
use crate::config::HostRewrite;
use crate::upstream::{Endpoint, UpstreamExchange};

impl Stream {
    /// Does for the outside world what the chain says.
    pub(super) fn apply(&mut self, output: Output, downstream: &mut dyn Downstream) {
        match output {
            Output::Headers { side: Side::Request, end_stream } => self.send_request(end_stream),
            Output::Data { side: Side::Request, data, end_stream } => {
                self.attempts.send_data(data, end_stream, self.listener.shared.config.buffer_limit);
            }
            Output::Trailers { side: Side::Request } => match self.chain.exchange().trailers(Side::Request) {
                Some(trailers) => self.attempts.send_trailers(&trailers),
                None => self.attempts.send_data(Body::new(), true, usize::MAX),
            },
            Output::Headers { side: Side::Response, end_stream } => self.send_response(end_stream, downstream),
            Output::Data { side: Side::Response, data, end_stream } => {
                self.response_done |= end_stream;
                downstream.data(data, end_stream);
            }
            Output::Trailers { side: Side::Response } => {
                self.response_done = true;
                downstream.trailers(self.chain.exchange().trailers(Side::Response).as_deref());
            }
            Output::Reset => self.cut = true,
        }
    }

    /// Envoy's router: finds where the request goes and starts it there.
    fn send_request(&mut self, end_stream: bool) {
        let exchange = self.chain.exchange();
        let Some(route) = exchange.route() else {
            self.listener.shared.stats.no_route.inc();
            exchange.info_mut().response_flags |= flags::NO_ROUTE_FOUND;
            self.chain.local_reply(LocalReply::new(404, "", "route_not_found"));
            return;
        };
        let shared = Rc::clone(&self.listener);
        let Some(compiled) = shared.shared.compiled(&route) else { return };
        let Some(mut headers) = exchange.headers_mut(Side::Request) else { return };
        if let Some(answer) = compiled.answer(&mut headers) {
            drop(headers);
            self.reply(answer);
            return;
        }
        let known = route.cluster.as_deref().and_then(|name| self.worker.pool.get(name));
        if known.is_none() {
            drop(headers);
            self.reply(LocalReply::new(503, "", "cluster_not_found"));
            return;
        }
        // Most requests bring no instructions: then nothing is looked for.
        let brings = rules::has_envoy_headers(&headers);
        let limits = rules::take_limits(&mut headers, compiled, brings);
        self.attempts.timeout = limits.timeout;
        self.attempts.per_try_timeout = limits.per_try;
        if brings || compiled.retry.is_some() {
            self.attempts.retry = Retry::new(compiled.retry.as_ref(), &headers);
            rules::drop_retry_headers(&mut headers);
        }
        exchange.info_mut().upstream_attempts = 1;
        rules::expect_answer_within(&mut headers, &self.listener.shared.config, limits.first());
        self.count_attempt(&mut headers);
        rules::route_request(&mut headers, &self.listener.shared.config, compiled, exchange);
        drop(headers);
        self.start_attempt(end_stream);
        if self.request_complete {
            self.attempts.start_clock();
        }
    }

    /// Answers instead of an upstream, with what the route adds to answers.
    pub(super) fn reply(&self, mut reply: LocalReply) {
        let exchange = self.chain.exchange();
        if let Some(route) = exchange.route()
            && let Some(route) = self.listener.shared.compiled(&route)
        {
            let mut headers = HeaderList::new(HeaderKind::Response);
            reply.headers.iter().for_each(|(name, value)| headers.add(name, value));
            route.change_response(&mut headers, exchange);
            let attempts = exchange.info().upstream_attempts;
            if route.tells_attempts && attempts > 0 {
                headers.set_in_place(b"x-envoy-attempt-count", attempts.to_string().as_bytes());
            }
            reply.headers = headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        }
        self.chain.local_reply(reply);
    }

    /// Tells the upstream which try this is, where the virtual host wants it.
    pub(super) fn count_attempt(&self, headers: &mut HeaderList) {
        let exchange = self.chain.exchange();
        let route = exchange
            .route()
            .filter(|route| self.listener.shared.compiled(route).is_some_and(|route| route.counts_attempts));
        if route.is_some() {
            let attempts = exchange.info().upstream_attempts.to_string();
            headers.set_in_place(b"x-envoy-attempt-count", attempts.as_bytes());
        }
    }

    /// Sends the request's head, as it stands, to the endpoint whose turn it is.
    pub(super) fn start_attempt(&mut self, end_stream: bool) {
        let exchange = self.chain.exchange();
        let Some(route) = exchange.route() else { return };
        let config = self.listener.shared.compiled(&route).map(|route| &route.config);
        let cluster = route.cluster.as_deref().and_then(|name| self.worker.pool.get(name));
        let (Some(config), Some(cluster)) = (config, cluster) else { return };
        let Some(mut headers) = exchange.headers_mut(Side::Request) else { return };
        let Some(lease) = cluster.lease() else {
            drop(headers);
            cluster.target.stats.cx_none_healthy.inc();
            exchange.info_mut().response_flags |= flags::NO_HEALTHY_UPSTREAM;
            self.reply(LocalReply::new(503, "no healthy upstream", "no_healthy_upstream"));
            return;
        };
        let endpoint = cluster.target.endpoints.get(lease.endpoint);
        let known_address = endpoint.and_then(Endpoint::address);
        if config.host_rewrite == HostRewrite::Auto
            && let Some(endpoint) = endpoint
        {
            rules::rewrite_host(&mut headers, &self.listener.shared.config, endpoint.host.as_bytes());
        }
        if let Err(why) = rules::check_request(&headers) {
            drop(headers);
            let details = format!("filter_removed_required_request_headers{{{}}}", why.replace(' ', "_"));
            let reply = LocalReply { body: why.into(), details: details.into(), ..LocalReply::new(503, "", "") };
            self.reply(reply);
            return;
        }
        self.attempts.upstream = Some(UpstreamExchange::start(lease, &headers, end_stream));
        drop(headers);
        exchange.info_mut().upstream.get_or_insert_default().address = known_address;
        self.note_upstream();
    }

    fn send_response(&mut self, end_stream: bool, downstream: &mut dyn Downstream) {
        if !self.request_complete || self.worker.is_draining() {
            self.close.get_or_insert(Close::Delayed);
        }
        let Some(mut headers) = self.chain.exchange().headers_mut(Side::Response) else { return };
        let switched = self.upgrade.is_some() && self.is_accepted(&headers);
        let close = self.close.is_some() && self.protocol != Protocol::Http2 && !switched;
        rules::finish_response(&mut headers, &self.listener.shared.config, self.upgrade.is_some());
        if close {
            headers.add(b"connection", b"close");
        }
        downstream.headers(&headers, end_stream);
        drop(headers);
        self.note_response_code();
        self.response_done = end_stream;
    }

    /// The upstream agrees to what the request wants its connection to become.
    fn is_accepted(&self, response: &HeaderList) -> bool {
        match (&self.upgrade, response.get(b":status")) {
            (Some(Upgrade::To(_)), status) => status == Some(b"101"),
            (Some(Upgrade::Connect), status) => status.is_some_and(|status| status.starts_with(b"2")),
            (None, _) => false,
        }
    }

    fn note_response_code(&self) {
        let code = self
            .chain
            .exchange()
            .headers(Side::Response)
            .and_then(|headers| std::str::from_utf8(headers.get(b":status")?).ok()?.parse::<u16>().ok());
        self.chain.exchange().info_mut().response_code = code;
        let class = usize::from(code.unwrap_or(0) / 100).wrapping_sub(1);
        if let Some(counter) = self.listener.shared.stats.rq_by_class.get(class) {
            counter.inc();
        }
    }
}
