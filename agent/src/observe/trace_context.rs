//! W3C Trace Context: which trace a request belongs to (<https://www.w3.org/TR/trace-context/>). Pure but for the random
//! ids, which need not be secret.

use std::fmt;

/// Longest `tracestate` that is passed on.
const STATE_BYTES_MAX: usize = 512;

/// The place of a request in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span.
    pub parent: Option<SpanId>,
    /// The span of the request itself.
    pub span: SpanId,
    /// Whether the caller wants the trace kept; nobody said when there was no caller in it.
    pub sampled: Option<bool>,
    /// What other systems noted in it.
    pub state: String,
}

/// A trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

/// A part of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub u64);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl SpanId {
    /// One that no other has.
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }
}

impl TraceContext {
    /// From the headers of a request; what is wrong counts as absent, as the standard says.
    pub fn from_headers(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let span = SpanId::random();
        match traceparent.and_then(parse) {
            Some((trace, parent, sampled)) => {
                let state = tracestate.unwrap_or_default();
                let state = if state.len() <= STATE_BYTES_MAX { state } else { "" };
                Self {
                    trace,
                    parent: Some(parent),
                    span,
                    sampled: Some(sampled),
                    state: state.to_owned(),
                }
            }
            None => Self {
                trace: TraceId(fastrand::u128(1..)),
                parent: None,
                span,
                sampled: None,
                state: String::new(),
            },
        }
    }

    /// The value of the response's `traceresponse` header, and of a `traceparent` for whoever is asked next.
    pub fn header(&self, kept: bool) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, u8::from(kept))
    }
}

/// `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`; a newer version may go on after that.
fn parse(text: &str) -> Option<(TraceId, SpanId, bool)> {
    let text = text.trim();
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, digits: usize| {
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (part.len() == digits && part.bytes().all(lower)).then_some(())
    };
    hex(version, 2)?;
    hex(trace, 32)?;
    hex(span, 16)?;
    hex(flags, 2)?;
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((TraceId(trace), SpanId(span), flags & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_callers_trace_goes_on_in_a_span_of_our_own() {
        let context = TraceContext::from_headers(Some(GIVEN), Some("vendor=1"));
        assert_eq!(context.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.parent.unwrap().to_string(), "00f067aa0ba902b7");
        assert_eq!((context.sampled, context.state.as_str()), (Some(true), "vendor=1"));
        let header = context.header(true);
        assert!(header.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{header}");
        assert!(!header.contains("00f067aa0ba902b7") && header.ends_with("-01"), "{header}");
    }

    #[test]
    fn what_is_no_traceparent_begins_a_trace() {
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e47é-00f067aa0ba902b7-01",
        ] {
            let context = TraceContext::from_headers(Some(wrong), Some("vendor=1"));
            assert_eq!((context.parent, context.sampled), (None, None), "{wrong}");
            assert!(context.state.is_empty());
        }
        let newer = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(TraceContext::from_headers(Some(newer), None).parent.is_some());
    }
}
