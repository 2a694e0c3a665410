//! Telling a collector of traces about a request: which trace it belongs to, how long it took, and what of that was
//! waiting and computing. The caller learns its place in the trace from the response.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Request},
    response::Response,
};

use crate::{
    observe::{
        clock,
        collector::Collector,
        span::{Attribute, Span},
        trace_context::TraceContext,
    },
    serve::{refused::Outcome, trail::Noted},
};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// A request that belongs to a trace, or begins one.
pub struct Traced {
    collector: Option<Collector>,
    context: TraceContext,
    method: String,
    route: String,
    start_ns: u64,
}

impl Traced {
    /// The request, if its caller traces it or there is a collector to be told.
    pub fn of(collector: Option<&Collector>, request: &Request<Body>, route: &str) -> Option<Self> {
        let parent = text(request.headers(), TRACEPARENT);
        if parent.is_none() && collector.is_none() {
            return None;
        }
        let context = TraceContext::from_headers(parent, text(request.headers(), TRACESTATE));
        let collector = collector.filter(|collector| collector.keeps(context.sampled)).cloned();
        let method = request.method().to_string();
        Some(Self {
            collector,
            context,
            method,
            route: route.to_owned(),
            start_ns: clock::now_ns(),
        })
    }

    /// The request was answered after `took`, or was not.
    pub fn end(self, response: &mut Response, noted: Noted, took: Duration) {
        let Self { collector, context, method, route, start_ns } = self;
        if let Ok(value) = HeaderValue::from_str(&context.header(collector.is_some())) {
            response.headers_mut().insert(TRACERESPONSE, value);
        }
        let Some(collector) = collector else { return };
        let failed = response.extensions().get::<Outcome>().copied();
        let status = failed.map_or(response.status(), |outcome| outcome.status);
        let name = format!("{method} {route}");
        let mut attributes = vec![
            ("http.request.method", Attribute::Text(method)),
            ("http.route", Attribute::Text(route)),
            ("http.response.status_code", Attribute::Number(u64::from(status.as_u16()))),
        ];
        attributes.extend(noted.model.map(|model| ("socle.model", Attribute::Text(model))));
        let error = status.is_server_error().then(|| failed.map_or("internal", |out| out.kind));
        let work = noted.work.map(|work| (work, noted.done));
        collector.offer(Span { context, name, start_ns, took, attributes, error, work });
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
