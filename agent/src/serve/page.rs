//! `/` and `/status` for a person with a browser: what runs here and how it goes. One page without scripts or anything
//! from elsewhere, in French or English, light or dark.

use std::sync::LazyLock;

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{Html, IntoResponse as _, Response},
};
use data_encoding::BASE64;
use engine::worker::message::ModelInfo;
use protocol::time::UnixMs;
use ring::digest::{SHA256, digest};

use crate::{
    observe::{
        clock,
        status::{Snapshot, WorkerHealth},
    },
    serve::{context::Context, words::Words},
};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#16202a;--soft:#566270;--line:#d5dbe1;--card:#fff;--back:#f3f5f7;--good:#0b6b3a;--bad:#a3261b}\
@media(prefers-color-scheme:dark){:root{--ink:#e8edf2;--soft:#a5b1bd;--line:#36414c;--card:#1b232b;--back:#12181e;--good:#5fd398;--bad:#ff9a8d}}\
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
main{max-width:64rem;margin:0 auto;padding:1.5rem 1rem}h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.25rem 1rem;overflow-x:auto}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{text-align:left;padding:.45rem .75rem .45rem 0;border-bottom:1px solid var(--line);vertical-align:top}\
tr:last-child>*{border-bottom:0}th{color:var(--soft);font-weight:600}.n{text-align:right}.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}\
code{font-size:.9em;overflow-wrap:anywhere}p{margin:.25rem 0}footer{color:var(--soft);margin-top:2rem}a{color:inherit}";

/// Nothing but this page's own style, nobody's frame.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = BASE64.encode(digest(&SHA256, STYLE.as_bytes()).as_ref());
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// `GET /` and `GET /status`.
pub async fn page(State(context): State<Context>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let words = Words::of(accepted.unwrap_or_default());
    let html = written(&context, words, clock::now());
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "accept-language"),
        (header::CONTENT_LANGUAGE, words.lang),
    ];
    (headers, Html(html)).into_response()
}

fn written(context: &Context, words: &Words, now: UnixMs) -> String {
    let snapshot = context.status.snapshot();
    let state = match snapshot.not_ready() {
        None => format!("<p class=\"good\">{}</p>", words.ready),
        Some(reason) => {
            format!("<p class=\"bad\">{}: {}</p>", words.not_ready, escaped(&reason))
        }
    };
    format!(
        "<!doctype html><html lang=\"{lang}\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>Socle</title>\
         <style>{STYLE}</style></head><body><main><h1>Socle</h1>{state}\
         <h2>{gateway}</h2><div class=\"card\"><table>{facts}</table></div>\
         <h2>{models}</h2><div class=\"card\">{table}</div>\
         <h2>{slots}</h2><div class=\"card\"><table>{held}</table></div>\
         <footer><p><a href=\"/status\">{refresh}</a> · <a href=\"/v1/status\">JSON</a> · \
         <a href=\"/metrics\">Prometheus</a></p></footer></main></body></html>\n",
        lang = words.lang,
        gateway = words.gateway,
        facts = facts(context, &snapshot, words, now),
        models = words.models,
        table = models(context, &snapshot, words, now),
        slots = words.slots,
        held = slots(&snapshot, words),
        refresh = words.refresh,
    )
}

fn facts(context: &Context, snapshot: &Snapshot, words: &Words, now: UnixMs) -> String {
    let seconds = now.since(snapshot.started_at) / 1000;
    let uptime = format!(
        "{} {} {} {} {} {}",
        seconds / 86_400,
        words.days,
        seconds / 3600 % 24,
        words.hours,
        seconds / 60 % 60,
        words.minutes
    );
    let release = snapshot.release.map(|release| release.to_string()).unwrap_or_default();
    let name = snapshot.release_name.clone().unwrap_or_default();
    let rows = [
        (words.version, env!("CARGO_PKG_VERSION").to_owned()),
        (words.slot, snapshot.slot.map_or("factory", |slot| slot.as_str()).to_owned()),
        (words.release, format!("{name} {release}").trim().to_owned()),
        (words.device, snapshot.compute().to_owned()),
        (words.uptime, uptime),
        (words.answered, context.tally.answered().to_string()),
        (words.failed, context.tally.failed().to_string()),
        (words.latency_p99, milliseconds(context.tally.latency_us_p99())),
    ];
    rows.iter().fold(String::new(), |mut html, (what, value)| {
        html.push_str(&row(what, value));
        html
    })
}

fn models(context: &Context, snapshot: &Snapshot, words: &Words, now: UnixMs) -> String {
    let models: &[ModelInfo] = match &snapshot.worker {
        WorkerHealth::Ready { models, .. } => models,
        WorkerHealth::Absent { .. } | WorkerHealth::Starting | WorkerHealth::Down { .. } => &[],
    };
    if models.is_empty() {
        return format!("<p>{}</p>", words.no_models);
    }
    let heads = [
        (words.model, ""),
        (words.version, ""),
        (words.task, ""),
        (words.state, ""),
        (words.per_second, " class=\"n\""),
        (words.tokens_per_second, " class=\"n\""),
        (words.latency_p50, " class=\"n\""),
        (words.latency_p99, " class=\"n\""),
        (words.failed, " class=\"n\""),
    ];
    let mut html = String::from("<table><thead><tr>");
    for (head, class) in heads {
        html.push_str(&format!("<th scope=\"col\"{class}>{head}</th>"));
    }
    html.push_str("</tr></thead><tbody>");
    for model in models {
        let figures = context.figures.of(&model.name);
        let (answers, tokens) = figures.rate(now);
        let (p50, p99) = context.figures.latency_us(&model.name);
        let (class, state) = if context.is_loaded(model) {
            ("good", words.loaded)
        } else {
            ("bad", words.not_loaded)
        };
        html.push_str(&format!(
            "<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td class=\"{class}\">{state}</td>\
             <td class=\"n\">{answers:.1}</td><td class=\"n\">{tokens:.0}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            escaped(&model.name),
            escaped(&model.version),
            escaped(&format!("{:?}", model.task).to_lowercase()),
            milliseconds(p50),
            milliseconds(p99),
            figures.fail.count
        ));
    }
    html.push_str("</tbody></table>");
    html
}

fn slots(snapshot: &Snapshot, words: &Words) -> String {
    let Some(record) = snapshot.record.as_deref() else {
        return format!("<tr><td>{}</td></tr>", words.unknown);
    };
    let mut rows = vec![(words.phase, record.state.phase().to_string())];
    let held = |held: &slots::state::Held| {
        format!("{} {} ({})", held.slot, held.name, held.release.short())
    };
    if let Some(active) = record.state.active() {
        rows.push((words.committed, held(active)));
    }
    if let Some(trial) = record.state.trial() {
        rows.push((words.trial, held(&trial.held)));
    }
    if let Some(last) = record.last() {
        rows.push((
            words.last,
            format!("{} {} {}", last.at.to_rfc3339(), last.kind.as_str(), last.detail),
        ));
    }
    rows.iter().fold(String::new(), |mut html, (what, value)| {
        html.push_str(&row(what, value));
        html
    })
}

fn row(what: &str, value: &str) -> String {
    format!("<tr><th scope=\"row\">{what}</th><td>{}</td></tr>", escaped(value))
}

fn milliseconds(us: u64) -> String {
    if us == 0 { "–".to_owned() } else { format!("{:.1} ms", us as f64 / 1000.0) }
}

/// `text` with nothing in it that HTML would understand.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, char| {
        match char {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
        safe
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(escaped("<a b='c'>\"&"), "&lt;a b=&#39;c&#39;&gt;&quot;&amp;");
    }

    #[test]
    fn the_policy_allows_this_style_alone() {
        assert!(POLICY.contains("default-src 'none'; style-src 'sha256-"), "{}", *POLICY);
        assert!(!POLICY.contains("unsafe"));
    }
}
