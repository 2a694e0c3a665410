//! One request as a trace shows it, and how that is written for a collector: OTLP as JSON
//! (<https://opentelemetry.io/docs/specs/otlp/>). Pure.

use std::time::Duration;

use serde_json::{Value, json};

use crate::observe::{
    figures::Work,
    trace_context::{SpanId, TraceContext},
};

/// Kinds of spans, by OTLP's numbers.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
/// The status of a span that failed.
const ERROR: u8 = 2;

/// A request that was answered, or was not.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its place in the trace.
    pub context: TraceContext,
    /// Method and route.
    pub name: String,
    /// When it began: nanoseconds since 1970.
    pub start_ns: u64,
    /// How long it took.
    pub took: Duration,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// The kind of error, if it was not answered.
    pub error: Option<&'static str>,
    /// What the worker did for it, and when that was done, counted from the beginning.
    pub work: Option<(Work, Duration)>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

/// Who says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Version of this agent.
    pub version: &'static str,
    /// Its slot.
    pub slot: String,
    /// Its release.
    pub release: String,
}

/// An export of `spans`.
pub fn export(resource: &Resource, spans: &[Span]) -> Value {
    let said = [
        ("service.name", Attribute::Text("socle-agent".into())),
        ("service.version", Attribute::Text(resource.version.into())),
        ("socle.slot", Attribute::Text(resource.slot.clone())),
        ("socle.release", Attribute::Text(resource.release.clone())),
    ];
    let spans: Vec<Value> = spans.iter().flat_map(written).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": attributes(&said) },
        "scopeSpans": [{ "scope": { "name": "socle", "version": resource.version }, "spans": spans }],
    }]})
}

/// The span, and one for each part of the work.
fn written(span: &Span) -> Vec<Value> {
    let Span { context, start_ns, took, .. } = span;
    let mut said = span.attributes.clone();
    if let Some(kind) = span.error {
        said.push(("error.type", Attribute::Text(kind.into())));
    }
    let mut whole = json!({
        "traceId": context.trace.to_string(),
        "spanId": context.span.to_string(),
        "name": span.name,
        "kind": SERVER,
        "startTimeUnixNano": start_ns.to_string(),
        "endTimeUnixNano": after(*start_ns, *took).to_string(),
        "attributes": attributes(&said),
        "status": if span.error.is_some() { json!({ "code": ERROR }) } else { json!({}) },
    });
    if let Some(members) = whole.as_object_mut() {
        if let Some(parent) = context.parent {
            members.insert("parentSpanId".into(), parent.to_string().into());
        }
        if !context.state.is_empty() {
            members.insert("traceState".into(), context.state.clone().into());
        }
    }
    let mut all = vec![whole];
    if let Some((work, done)) = span.work {
        let computing = done.saturating_sub(work.compute);
        let waiting = computing.saturating_sub(work.queue);
        all.push(part(span, "queue", (waiting, computing), &[]));
        let sizes = [
            ("socle.items", Attribute::Number(u64::from(work.items))),
            ("socle.tokens", Attribute::Number(work.tokens)),
        ];
        all.push(part(span, "compute", (computing, done), &sizes));
    }
    all
}

fn part(
    span: &Span,
    name: &str,
    (from, to): (Duration, Duration),
    said: &[(&'static str, Attribute)],
) -> Value {
    json!({
        "traceId": span.context.trace.to_string(),
        "spanId": SpanId::random().to_string(),
        "parentSpanId": span.context.span.to_string(),
        "name": name,
        "kind": INTERNAL,
        "startTimeUnixNano": after(span.start_ns, from).to_string(),
        "endTimeUnixNano": after(span.start_ns, to).to_string(),
        "attributes": attributes(said),
    })
}

fn after(start_ns: u64, took: Duration) -> u64 {
    start_ns.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
}

fn attributes(said: &[(&'static str, Attribute)]) -> Vec<Value> {
    let one = |(key, value): &(&'static str, Attribute)| {
        let value = match value {
            Attribute::Text(text) => json!({ "stringValue": text }),
            // 64-bit numbers are texts in the JSON form of Protocol Buffers.
            Attribute::Number(number) => json!({ "intValue": number.to_string() }),
        };
        json!({ "key": key, "value": value })
    };
    said.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_work_lie_within_their_request() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let ms = Duration::from_millis;
        let work = Work { items: 1, tokens: 9, queue: ms(1), compute: ms(5) };
        let span = Span {
            context: TraceContext::from_headers(Some(given), Some("a=b")),
            name: "POST /embed".into(),
            start_ns: 1_000_000_000,
            took: ms(10),
            attributes: vec![("http.response.status_code", Attribute::Number(200))],
            error: None,
            work: Some((work, ms(8))),
        };
        let resource = Resource { version: "1", slot: "a".into(), release: String::new() };
        let json = export(&resource, &[span]);
        let spans = &json["resourceSpans"][0]["scopeSpans"][0]["spans"];
        assert_eq!(spans[0]["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(spans[0]["parentSpanId"], "00f067aa0ba902b7");
        assert_eq!(spans[0]["traceState"], "a=b");
        assert_eq!(spans[0]["attributes"][0]["value"]["intValue"], "200");
        let times = |at: usize| {
            let time = |name: &str| spans[at][name].as_str().unwrap().to_owned();
            (time("startTimeUnixNano"), time("endTimeUnixNano"))
        };
        assert_eq!(times(0), ("1000000000".into(), "1010000000".into()));
        assert_eq!(times(1), ("1002000000".into(), "1003000000".into()));
        assert_eq!(times(2), ("1003000000".into(), "1008000000".into()));
        for part in [1, 2] {
            assert_eq!(spans[part]["parentSpanId"], spans[0]["spanId"]);
            assert_eq!(spans[part]["traceId"], spans[0]["traceId"]);
        }
    }
}
