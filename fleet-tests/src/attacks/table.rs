//! The attacks as the threat model shows them: one row for each test, named by it.

use std::collections::BTreeSet;

/// What stands before and after the table in the page.
pub const BEGIN: &str =
    "<!-- attacks: written by `cargo xtask attacks --write` from the tests' names -->";
const END: &str = "<!-- attacks: end -->";

/// What the tests of a file attack.
const AGAINST: [(&str, &str); 8] = [
    ("freshness", "the verifier"),
    ("signers", "the verifier"),
    ("delegations", "the verifier"),
    ("encoding", "the verifier"),
    ("assignments", "the updater, with real slots on a real disk"),
    ("archives", "the updater, with real slots on a real disk"),
    ("downloads", "the gateway's downloader, over HTTPS from a server that misbehaves"),
    ("machine", "`socle-launch` and what it starts from"),
];

/// One attack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The file of its test.
    pub file: String,
    /// The test's name.
    pub test: String,
}

/// The attacks in a file of tests: every `#[test]` function.
pub fn rows(file: &str, text: &str) -> Vec<Row> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let tests = lines.iter().enumerate().filter(|(_, line)| **line == "#[test]");
    let names = tests.filter_map(|(at, _)| {
        let function = lines.iter().skip(at).find_map(|line| line.strip_prefix("fn "))?;
        Some(function.split('(').next()?.to_owned())
    });
    names.map(|test| Row { file: file.to_owned(), test }).collect()
}

/// The files whose tests are attacks, in the table's order.
pub fn files() -> impl Iterator<Item = &'static str> {
    AGAINST.iter().map(|(file, _)| *file)
}

/// The table between its markers.
pub fn render(rows: &[Row]) -> String {
    let mut text = format!("{BEGIN}\n");
    text.push_str(&format!("{} attacks, 0 accepted.\n", rows.len()));
    let mut against = Vec::new();
    for (_, who) in AGAINST {
        if !against.contains(&who) {
            against.push(who);
        }
    }
    for who in against {
        let of: BTreeSet<&str> =
            AGAINST.iter().filter(|(_, other)| *other == who).map(|(file, _)| *file).collect();
        let mut names: Vec<&Row> =
            rows.iter().filter(|row| of.contains(row.file.as_str())).collect();
        names.sort_by(|a, b| a.test.cmp(&b.test));
        if names.is_empty() {
            continue;
        }
        text.push_str(&format!("\n| against {who} | test |\n|---|---|\n"));
        for row in names {
            let words = row.test.replace('_', " ");
            text.push_str(&format!("| {words} | `{}::{}` |\n", row.file, row.test));
        }
    }
    text.push_str(END);
    text
}

/// The page with its table replaced; none if the markers are not there.
pub fn replace(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{table}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_test_and_none_for_a_helper() {
        let text =
            "fn helper() {}\n#[test]\nfn one_attack() {\n}\n#[test]\n#[cfg(x)]\nfn two() {}\n";
        let found = rows("machine", text);
        let names: Vec<&str> = found.iter().map(|row| row.test.as_str()).collect();
        assert_eq!(names, ["one_attack", "two"]);
        let table = render(&found);
        assert!(table.contains("| one attack | `machine::one_attack` |"), "{table}");
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(replace(&page, &table), Some(format!("a\n{table}\nb\n")));
        assert_eq!(replace("a", &table), None);
    }
}
