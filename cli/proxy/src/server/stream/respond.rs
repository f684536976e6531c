//! What a chain puts out, on its way: the request upstream, the response down.

use spctl_host::{Body, LocalReply, Output, Protocol, Side};

use super::super::downstream::Downstream;
use super::super::rules;
use super::{Close, Stream, flags};
use crate::config::HostRewrite;
use crate::upstream::{Endpoint, UpstreamExchange};

impl Stream {
    /// Does for the outside world what the chain says.
    pub(super) fn apply(&mut self, output: Output, downstream: &mut dyn Downstream) {
        match output {
            Output::Headers { side: Side::Request, end_stream } => self.send_request(end_stream),
            Output::Data { side: Side::Request, data, end_stream } => {
                if let Some(upstream) = &mut self.upstream {
                    upstream.send_data(data, end_stream);
                }
            }
            Output::Trailers { side: Side::Request } => {
                if let Some(upstream) = &mut self.upstream {
                    match self.chain.exchange().trailers(Side::Request) {
                        Some(trailers) => upstream.send_trailers(&trailers),
                        None => upstream.send_data(Body::new(), true),
                    }
                }
            }
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
        let config = self.listener.shared.route_config(&route);
        let cluster = route.cluster.as_deref().and_then(|name| self.worker.pool.get(name));
        let (Some(config), Some(cluster)) = (config, cluster) else {
            self.chain.local_reply(LocalReply::new(503, "", "cluster_not_found"));
            return;
        };
        let Some(mut headers) = exchange.headers_mut(Side::Request) else { return };
        rules::route_request(&mut headers, &self.listener.shared.config, config);
        exchange.info_mut().upstream_attempts = 1;
        let Some(lease) = cluster.lease() else {
            drop(headers);
            cluster.target.stats.cx_none_healthy.inc();
            exchange.info_mut().response_flags |= flags::NO_HEALTHY_UPSTREAM;
            self.chain.local_reply(LocalReply::new(503, "no healthy upstream", "no_healthy_upstream"));
            return;
        };
        let endpoint = cluster.target.endpoints.get(lease.endpoint);
        let known_address = endpoint.and_then(Endpoint::address);
        if config.host_rewrite == HostRewrite::Auto
            && let Some(endpoint) = endpoint
        {
            headers.set_in_place(b":authority", endpoint.host.as_bytes());
        }
        if let Err(why) = rules::check_request(&headers) {
            drop(headers);
            let details = format!("filter_removed_required_request_headers{{{}}}", why.replace(' ', "_"));
            let reply = LocalReply { body: why.into(), details: details.into(), ..LocalReply::new(503, "", "") };
            self.chain.local_reply(reply);
            return;
        }
        self.upstream = Some(UpstreamExchange::start(lease, &headers, end_stream));
        drop(headers);
        let mut info = exchange.info_mut();
        info.upstream.get_or_insert_default().address = known_address;
        drop(info);
        self.note_upstream();
        if self.request_complete {
            self.arm_timeout();
        }
    }

    fn send_response(&mut self, end_stream: bool, downstream: &mut dyn Downstream) {
        if !self.request_complete || self.worker.is_draining() {
            self.close.get_or_insert(Close::Delayed);
        }
        let Some(mut headers) = self.chain.exchange().headers_mut(Side::Response) else { return };
        let close = self.close.is_some() && self.protocol != Protocol::Http2;
        rules::finish_response(&mut headers, &self.listener.shared.config, close);
        downstream.headers(&headers, end_stream);
        drop(headers);
        self.note_response_code();
        self.response_done = end_stream;
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
