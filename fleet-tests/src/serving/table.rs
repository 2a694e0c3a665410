//! What was seen, as tables in Markdown.

use std::collections::BTreeSet;

use crate::{
    bench::stats::median,
    serving::{
        contest::{Kept, Maker, Way},
        load::Outcome,
        target::Form,
    },
};

/// All tables. Ratios are how many times a server does what a peer does, asked in the same form and in JSON.
pub fn all(kept: &[Kept], ways: &[Way], limit_ms: f64) -> Vec<String> {
    let mut lines = Vec::new();
    if !kept.is_empty() {
        lines.push(format!("\n### Highest Poisson rate with p99 ≤ {limit_ms:.0} ms"));
        lines.extend(rates(kept));
        lines.push("\n### Milliseconds of the processor for a request at that rate".to_owned());
        lines.extend(processor(kept));
    }
    lines
        .push("\n### The way to a model that does nothing, one request after the other".to_owned());
    lines.extend(shares(ways));
    lines
}

fn rates(kept: &[Kept]) -> Vec<String> {
    let of = |maker, form| {
        kept.iter().find(|kept| kept.maker == maker && kept.form == form).and_then(|kept| kept.rate)
    };
    let mut lines = vec![
        "| server | requests per second | p50 ms | p99 ms | × Triton, same form | × Triton, JSON | × MLServer, JSON |".to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for server in kept {
        let times = |peer: Option<f64>| {
            ratio(server.rate, peer).map_or_else(String::new, |ratio| format!("{ratio:.2}"))
        };
        let middle = |value: fn(&Outcome) -> f64| {
            let values: Vec<f64> = server.confirmed.iter().map(value).collect();
            if values.is_empty() { String::new() } else { format!("{:.1}", median(&values)) }
        };
        lines.push(format!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            server.name,
            server.rate.map_or_else(|| "none".to_owned(), |rate| format!("{rate:.0}")),
            middle(|outcome| outcome.p50_ms),
            middle(|outcome| outcome.p99_ms),
            times(of(Maker::Triton, server.form)),
            times(of(Maker::Triton, Form::Json)),
            times(of(Maker::Mlserver, Form::Json)),
        ));
    }
    lines
}

fn processor(kept: &[Kept]) -> Vec<String> {
    let who: BTreeSet<&str> =
        kept.iter().flat_map(|kept| kept.processor_ms.keys()).copied().collect();
    let names: Vec<&str> = who.iter().copied().collect();
    let mut lines = vec![
        format!("| server | {} | all |", names.join(" | ")),
        format!("|---|{}---|", "---|".repeat(names.len())),
    ];
    for server in kept.iter().filter(|kept| !kept.processor_ms.is_empty()) {
        let spent = |name: &&str| server.processor_ms.get(*name).map(|all| median(all));
        let cells: Vec<Option<f64>> = names.iter().map(spent).collect();
        let all: f64 = cells.iter().flatten().sum();
        let shown: Vec<String> =
            cells.iter().map(|ms| ms.map_or_else(String::new, |ms| format!("{ms:.2}"))).collect();
        lines.push(format!("| {} | {} | {all:.2} |", server.name, shown.join(" | ")));
    }
    lines
}

fn shares(ways: &[Way]) -> Vec<String> {
    let of = |maker, form| {
        ways.iter().find(|way| way.maker == maker && way.form == form).map(Way::median_ms)
    };
    let mut lines = vec![
        "| server | p50 ms | of Triton's, same form | of Triton's JSON |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    for way in ways {
        let share = |peer: Option<f64>| {
            ratio(Some(way.median_ms()), peer)
                .map_or_else(String::new, |share| format!("{share:.2}"))
        };
        lines.push(format!(
            "| {} | {:.3} | {} | {} |",
            way.name,
            way.median_ms(),
            share(of(Maker::Triton, way.form)),
            share(of(Maker::Triton, Form::Json)),
        ));
    }
    lines
}

fn ratio(ours: Option<f64>, peer: Option<f64>) -> Option<f64> {
    Some(ours? / peer.filter(|peer| *peer > 0.0)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn kept(name: &str, maker: Maker, form: Form, rate: Option<f64>) -> Kept {
        let outcome = Outcome { p50_ms: 2.0, p99_ms: 9.0, ..Outcome::default() };
        let processor_ms = BTreeMap::from([("generator", vec![0.1, 0.2, 0.9])]);
        let (confirmed, trials) = (vec![outcome], Vec::new());
        Kept { name: name.to_owned(), maker, form, rate, confirmed, trials, processor_ms }
    }

    #[test]
    fn each_is_held_against_the_peers_in_its_own_form_and_in_json() {
        let kept = [
            kept("socle, JSON", Maker::Socle, Form::Json, Some(600.0)),
            kept("socle, gRPC", Maker::Socle, Form::Grpc, Some(800.0)),
            kept("Triton, JSON", Maker::Triton, Form::Json, Some(200.0)),
            kept("Triton, gRPC", Maker::Triton, Form::Grpc, Some(400.0)),
            kept("MLServer, JSON", Maker::Mlserver, Form::Json, None),
        ];
        let way = |name: &str, maker, p50_ms: f64| Way {
            name: name.to_owned(),
            maker,
            form: Form::Json,
            p50_ms: vec![p50_ms],
        };
        let ways =
            [way("socle, JSON", Maker::Socle, 0.25), way("Triton, JSON", Maker::Triton, 1.0)];
        let text = all(&kept, &ways, 50.0).join("\n");
        for line in [
            "| socle, JSON | 600 | 2.0 | 9.0 | 3.00 | 3.00 |  |",
            "| socle, gRPC | 800 | 2.0 | 9.0 | 2.00 | 4.00 |  |",
            "| MLServer, JSON | none | 2.0 | 9.0 |  |  |  |",
            "| socle, JSON | 0.20 | 0.20 |",
            "| socle, JSON | 0.250 | 0.25 | 0.25 |",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!all(&[], &ways, 50.0).join("\n").contains("Poisson"));
    }
}
