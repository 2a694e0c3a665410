//! From facts to the page. Pure.

use std::fmt::{self, Write as _};

use protocol::{digest::Digest, id::DeviceId};

use super::{
    html::{Text, When},
    words::Language,
};
use crate::{
    http::rollouts::Shown,
    store::{devices::Device, events::Event, refusals::RefusalCount, releases::Release},
};

/// What the page shows.
pub struct Facts {
    /// The fleet's name.
    pub fleet: String,
    /// Whether the broker is connected.
    pub connected: bool,
    /// All devices.
    pub devices: Vec<Device>,
    /// All releases, for their names.
    pub releases: Vec<Release>,
    /// The newest rollout.
    pub rollout: Option<Shown>,
    /// The newest events, newest first.
    pub events: Vec<Event>,
    /// Refused messages by reason.
    pub refused: Vec<RefusalCount>,
}

/// Whether a login was tried before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// No.
    First,
    /// Yes, with a wrong token.
    Wrong,
}

/// The page itself.
pub fn overview(facts: &Facts, language: Language) -> Result<String, fmt::Error> {
    let words = language.words();
    let mut out = String::with_capacity(16 * 1024);
    head(&mut out, &facts.fleet, language, Refresh::Yes)?;
    let (class, broker) =
        if facts.connected { ("good", words.broker_up) } else { ("bad", words.broker_down) };
    write!(
        out,
        "<header><h1>{} <strong>{}</strong></h1><p class=\"pill {class}\">{broker}</p>\
         <nav><a href=\"/?lang={}\" hreflang=\"{}\">{}</a>\
         <form method=\"post\" action=\"/logout\"><button>{}</button></form></nav></header>\
         <main id=\"live\" tabindex=\"-1\">",
        words.fleet,
        Text(&facts.fleet),
        words.other_tag,
        words.other_tag,
        words.other_name,
        words.log_out
    )?;
    rollout(&mut out, facts, language)?;
    devices(&mut out, facts, language)?;
    events(&mut out, facts, language)?;
    refused(&mut out, facts, language)?;
    write!(out, "</main><footer><p>{}</p></footer></body></html>", words.utc)?;
    Ok(out)
}

/// The page that asks for the admin token.
pub fn login(fleet: &str, language: Language, login: Login) -> Result<String, fmt::Error> {
    let words = language.words();
    let mut out = String::new();
    head(&mut out, fleet, language, Refresh::No)?;
    let wrong = match login {
        Login::First => String::new(),
        Login::Wrong => format!("<p class=\"pill bad\" role=\"alert\">{}</p>", words.wrong_token),
    };
    write!(
        out,
        "<main class=\"login\" id=\"live\"><h1>{} <strong>{}</strong></h1>{wrong}\
         <form method=\"post\" action=\"/login?lang={}\">\
         <label for=\"token\">{}</label>\
         <input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"current-password\" \
         aria-describedby=\"hint\" required autofocus>\
         <p id=\"hint\">{}</p><button>{}</button></form>\
         <p><a href=\"/?lang={}\" hreflang=\"{}\">{}</a></p></main></body></html>",
        words.fleet,
        Text(fleet),
        words.tag,
        words.token,
        words.token_hint,
        words.log_in,
        words.other_tag,
        words.other_tag,
        words.other_name
    )?;
    Ok(out)
}

#[derive(PartialEq, Eq)]
enum Refresh {
    Yes,
    No,
}

fn head(out: &mut String, fleet: &str, language: Language, refresh: Refresh) -> fmt::Result {
    let words = language.words();
    write!(
        out,
        "<!doctype html><html lang=\"{}\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>Socle · {}</title><link rel=\"stylesheet\" href=\"/assets/console.css\">",
        words.tag,
        Text(fleet)
    )?;
    if refresh == Refresh::Yes {
        out.push_str(
            "<script src=\"/assets/console.js\" defer></script>\
             <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>",
        );
    }
    write!(out, "</head><body><a class=\"skip\" href=\"#live\">{}</a>", words.skip)
}

fn rollout(out: &mut String, facts: &Facts, language: Language) -> fmt::Result {
    let words = language.words();
    write!(out, "<section aria-labelledby=\"rollout\"><h2 id=\"rollout\">{}", words.rollout)?;
    let Some(shown) = &facts.rollout else {
        return write!(out, "</h2><p>{}</p></section>", words.no_rollout);
    };
    let state = shown.state.as_str();
    write!(
        out,
        " {} <span class=\"pill {}\">{}</span></h2><p>{} <strong>{}</strong> <code>{}</code></p>",
        shown.id,
        tone(state),
        Text(language.word(state)),
        words.release,
        Text(&shown.name),
        shown.release.short()
    )?;
    if !shown.reason.is_empty() {
        write!(out, "<p>{}</p>", Text(&shown.reason))?;
    }
    let [share, sample, seconds, end] = words.gate;
    write!(
        out,
        "<p class=\"quiet\">{share}{}{sample}{}{seconds}{}{end}</p><ol class=\"waves\">",
        shown.gate.success_percent, shown.gate.min_sample, shown.gate.timeout_s
    )?;
    for wave in &shown.waves {
        write!(
            out,
            "<li><h3>{} <span class=\"pill {}\">{}</span></h3><ul>",
            Text(&wave.name),
            tone(wave.state),
            Text(language.word(wave.state))
        )?;
        for device in &wave.devices {
            write!(
                out,
                "<li><span class=\"pill {}\">{}</span> {} <span class=\"quiet\">{}</span></li>",
                tone(device.status),
                Text(language.word(device.status)),
                Text(&name_of(facts, device.id)),
                Text(&device.detail)
            )?;
        }
        out.push_str("</ul></li>");
    }
    out.push_str("</ol></section>");
    Ok(())
}

fn devices(out: &mut String, facts: &Facts, language: Language) -> fmt::Result {
    let words = language.words();
    write!(out, "<section aria-labelledby=\"devices\"><h2 id=\"devices\">{}</h2>", words.devices)?;
    if facts.devices.is_empty() {
        return write!(out, "<p>{}</p></section>", words.no_devices);
    }
    table(out, &words.device_columns)?;
    for device in &facts.devices {
        let (class, word) =
            if device.online { ("good", words.online) } else { ("bad", words.offline) };
        let state = device.state.as_ref();
        let runs = state.and_then(|state| state.committed.as_ref()).map_or_else(
            || words.factory.to_owned(),
            |held| format!("{} ({})", held.name, held.slot),
        );
        let trial = state
            .and_then(|state| state.trial.as_ref())
            .map_or_else(String::new, |held| format!("{} ({})", held.name, held.slot));
        let phase = state.map_or("", |state| state.phase.as_str());
        write!(
            out,
            "<tr><th scope=\"row\">{}</th><td><code>{}</code></td><td>{}</td>\
             <td><span class=\"pill {class}\">{word}</span></td><td>{}</td><td>{}</td><td>{}</td><td>",
            Text(&device.name),
            device.id.short(),
            device.environment,
            Text(&runs),
            Text(&trial),
            Text(language.word(phase))
        )?;
        match device.last_seen {
            Some(at) => write!(out, "{}", When(at))?,
            None => out.push_str(words.never),
        }
        out.push_str("</td></tr>");
    }
    out.push_str("</tbody></table></div></section>");
    Ok(())
}

fn events(out: &mut String, facts: &Facts, language: Language) -> fmt::Result {
    let words = language.words();
    write!(out, "<section aria-labelledby=\"events\"><h2 id=\"events\">{}</h2>", words.events)?;
    if facts.events.is_empty() {
        return write!(out, "<p>{}</p></section>", words.no_events);
    }
    table(out, &words.event_columns)?;
    for event in &facts.events {
        write!(
            out,
            "<tr><td>{}</td><td>{}</td><td><span class=\"pill {}\">{}</span></td><td>{}</td><td>{}</td></tr>",
            When(event.received_at),
            Text(&name_of(facts, event.device)),
            tone(&event.kind),
            Text(language.word(&event.kind)),
            Text(&event.release.map(|release| release_name(facts, release)).unwrap_or_default()),
            Text(&event.detail)
        )?;
    }
    out.push_str("</tbody></table></div></section>");
    Ok(())
}

fn refused(out: &mut String, facts: &Facts, language: Language) -> fmt::Result {
    let words = language.words();
    write!(out, "<section aria-labelledby=\"refused\"><h2 id=\"refused\">{}</h2>", words.refused)?;
    if facts.refused.is_empty() {
        return write!(out, "<p>{}</p></section>", words.none_refused);
    }
    out.push_str("<ul>");
    for refused in &facts.refused {
        write!(
            out,
            "<li>{}: <strong>{}</strong> <span class=\"quiet\">{}</span></li>",
            Text(language.word(&refused.reason)),
            refused.count,
            Text(&refused.last_detail)
        )?;
    }
    out.push_str("</ul></section>");
    Ok(())
}

fn table(out: &mut String, columns: &[&str]) -> fmt::Result {
    out.push_str("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>");
    for column in columns {
        write!(out, "<th scope=\"col\">{column}</th>")?;
    }
    out.push_str("</tr></thead><tbody>");
    Ok(())
}

/// The colour of a word. Colour only repeats what the word says.
fn tone(word: &str) -> &'static str {
    match word {
        "complete" | "passed" | "committed" | "golden" => "good",
        "halted" | "failed" | "rolled-back" | "timed-out" | "refused" | "alarm" => "bad",
        "running" | "assigned" | "probation" | "armed" | "worker-restarted" => "busy",
        _ => "",
    }
}

fn name_of(facts: &Facts, id: DeviceId) -> String {
    facts
        .devices
        .iter()
        .find(|device| device.id == id)
        .map_or_else(|| id.short(), |device| device.name.clone())
}

fn release_name(facts: &Facts, digest: Digest) -> String {
    facts
        .releases
        .iter()
        .find(|release| release.digest == digest)
        .map_or_else(|| digest.short(), |release| release.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::time::UnixMs;

    fn facts(detail: &str) -> Facts {
        Facts {
            fleet: "demo".into(),
            connected: true,
            devices: Vec::new(),
            releases: Vec::new(),
            rollout: None,
            events: vec![Event {
                id: 1,
                at: UnixMs(1),
                received_at: UnixMs(2),
                device: DeviceId::from(Digest::of(b"d")),
                kind: "rolled-back".into(),
                release: None,
                rollout: 0,
                detail: detail.into(),
            }],
            refused: Vec::new(),
        }
    }

    #[test]
    fn what_devices_write_is_shown_and_never_run() {
        let page = overview(&facts("<img src=x onerror=alert(1)>"), Language::English).unwrap();
        assert!(!page.contains("<img"));
        assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;"));
    }

    #[test]
    fn the_page_is_in_the_language_asked_for_and_loads_nothing_from_elsewhere() {
        for (language, tag, word) in [
            (Language::English, "lang=\"en\"", "Live events"),
            (Language::French, "lang=\"fr\"", "Événements en direct"),
        ] {
            let page = overview(&facts(""), language).unwrap();
            assert!(page.contains(tag) && page.contains(word));
            assert!(!page.contains("http://") && !page.contains("https://"));
            assert!(!page.contains("style=") && !page.contains("onclick"));
            let asked = login("demo", language, Login::Wrong).unwrap();
            assert!(asked.contains(tag) && asked.contains("role=\"alert\""));
        }
    }
}
