//! The older of the two forms in which figures are written: Prometheus' text format 0.0.4, for who does not ask for
//! OpenMetrics. Pure.

/// Media type of OpenMetrics.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Media type of the older form.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `openmetrics` in the older form: a family of counters is named like its samples, an info is a gauge, and there are
/// neither units nor an end mark.
pub fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help: Option<(&str, &str)> = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, words)) = help.take().filter(|(helped, _)| *helped == name) {
                let words = words.trim_end_matches('.');
                text.push_str(&format!("# HELP {name}{suffix} {words}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Whether the value of an `Accept` header asks for OpenMetrics.
pub fn wants_openmetrics(accept: &str) -> bool {
    accept.split(',').any(|one| one.trim().starts_with("application/openmetrics-text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_named_as_the_older_form_wants() {
        let openmetrics = "# HELP a Things.\n# TYPE a counter\na_total 1\n# HELP b_seconds Time.\n\
            # TYPE b_seconds histogram\n# UNIT b_seconds seconds\nb_seconds_sum 0.0\n\
            # HELP c What.\n# TYPE c info\nc_info{x=\"y\"} 1\n# EOF\n";
        let expected = "# HELP a_total Things\n# TYPE a_total counter\na_total 1\n\
            # HELP b_seconds Time\n# TYPE b_seconds histogram\nb_seconds_sum 0.0\n\
            # HELP c_info What\n# TYPE c_info gauge\nc_info{x=\"y\"} 1\n";
        assert_eq!(classic(openmetrics), expected);
    }

    #[test]
    fn who_asks_for_openmetrics_gets_it() {
        assert!(wants_openmetrics("text/plain;q=0.5, application/openmetrics-text;version=1.0.0"));
        assert!(!wants_openmetrics("*/*"));
    }
}
