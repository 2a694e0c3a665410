//! What was seen, as tables in Markdown.

use crate::{
    bench::stats::median,
    serving::contest::{Kept, Way},
};

/// Both tables; ratios are to the first of each, which is ours.
pub fn all(kept: &[Kept], ways: &[Way], limit_ms: f64) -> Vec<String> {
    let mut lines = vec![
        format!("\n### Highest Poisson rate with p99 ≤ {limit_ms:.0} ms"),
        "| server | requests per second | p50 ms | p99 ms | socle / it |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    let ours = kept.first().and_then(|kept| kept.rate);
    for server in kept {
        let of = |value: fn(&crate::serving::load::Outcome) -> f64| {
            median(&server.confirmed.iter().map(value).collect::<Vec<_>>())
        };
        lines.push(match (server.rate, ours) {
            (Some(rate), Some(ours)) => format!(
                "| {} | {rate:.0} | {:.1} | {:.1} | {:.2}× |",
                server.name,
                of(|outcome| outcome.p50_ms),
                of(|outcome| outcome.p99_ms),
                ours / rate
            ),
            (Some(rate), None) => format!("| {} | {rate:.0} | | | |", server.name),
            (None, _) => format!("| {} | none | | | |", server.name),
        });
    }
    lines
        .push("\n### The way to a model that does nothing, one request after the other".to_owned());
    lines.push("| way | p50 ms | of Triton's JSON |".to_owned());
    lines.push("|---|---|---|".to_owned());
    let triton = ways.iter().find(|way| way.name.starts_with("Triton")).map(Way::median_ms);
    for way in ways {
        let share =
            triton.map_or_else(String::new, |triton| format!("{:.2}", way.median_ms() / triton));
        lines.push(format!("| {} | {:.3} | {share} |", way.name, way.median_ms()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str, rate: Option<f64>) -> Kept {
        Kept { name: name.to_owned(), rate, confirmed: Vec::new(), trials: Vec::new() }
    }

    #[test]
    fn ours_is_held_against_each_server_and_ways_against_tritons() {
        let kept = [kept("socle", Some(600.0)), kept("Triton", Some(200.0)), kept("X", None)];
        let ways = [
            Way { name: "socle, JSON".to_owned(), p50_ms: vec![0.25] },
            Way { name: "Triton, JSON".to_owned(), p50_ms: vec![1.0] },
        ];
        let text = all(&kept, &ways, 50.0).join("\n");
        assert!(text.contains("| Triton | 200 | NaN | NaN | 3.00× |"), "{text}");
        assert!(text.contains("| X | none |") && text.contains("| socle, JSON | 0.250 | 0.25 |"));
    }
}
