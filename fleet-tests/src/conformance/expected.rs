//! The written list of what comes of each test: one line a test, and patterns of tests that are not tried, with the
//! reason.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use crate::conformance::{children::Tried, outcome::Outcome};

/// Begins a line that leaves tests out: `exclude PATTERN: reason`.
const EXCLUDE: &str = "exclude ";

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Patterns of names, `*` for any text, with the reason.
    pub excluded: Vec<(String, String)>,
    /// What is to come of each test.
    pub outcomes: BTreeMap<String, Outcome>,
    /// The comments at the top, kept when the list is written again.
    pub head: String,
}

/// A test of which something else came than is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The test.
    pub test: String,
    /// What is written, if anything.
    pub expected: Option<Outcome>,
    /// What came, if it is there still.
    pub found: Option<Outcome>,
}

impl Expected {
    /// Reads the list.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut list = Self::default();
        for (at, line) in text.lines().enumerate() {
            let wrong = || format!("line {} of the expected results, `{line}`", at + 1);
            if line.starts_with('#') {
                list.head.push_str(line);
                list.head.push('\n');
            } else if let Some(rest) = line.strip_prefix(EXCLUDE) {
                let (pattern, reason) = rest.split_once(": ").with_context(wrong)?;
                list.excluded.push((pattern.to_owned(), reason.to_owned()));
            } else if !line.is_empty() {
                let (name, outcome) = line.split_once(' ').with_context(wrong)?;
                let outcome = outcome.parse().with_context(wrong)?;
                let before = list.outcomes.insert(name.to_owned(), outcome);
                ensure!(before.is_none(), "{}: written twice", wrong());
            }
        }
        Ok(list)
    }

    /// Whether the test is left out.
    pub fn excludes(&self, test: &str) -> bool {
        self.excluded.iter().any(|(pattern, _)| fits(pattern, test))
    }

    /// Where what came of the tests is not what is written.
    pub fn changes(&self, tried: &[Tried]) -> Vec<Change> {
        let found: BTreeMap<String, Outcome> =
            tried.iter().map(|one| (one.case.to_string(), one.outcome)).collect();
        let names = self
            .outcomes
            .keys()
            .chain(found.keys().filter(|name| !self.outcomes.contains_key(*name)));
        names
            .map(|test| Change {
                test: test.clone(),
                expected: self.outcomes.get(test).copied(),
                found: found.get(test).copied(),
            })
            .filter(|change| change.expected != change.found)
            .collect()
    }

    /// The list with what came of the tests now.
    pub fn written(&self, tried: &[Tried]) -> String {
        let mut text = self.head.clone();
        for (pattern, reason) in &self.excluded {
            text.push_str(&format!("{EXCLUDE}{pattern}: {reason}\n"));
        }
        for one in tried {
            text.push_str(&format!("{} {}\n", one.case, one.outcome));
        }
        text
    }
}

/// Whether `name` is what `pattern` says; `*` stands for any text.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|left| {
            left.char_indices()
                .map(|(at, _)| at)
                .chain([left.len()])
                .any(|at| left.get(at..).is_some_and(|tail| fits(rest, tail)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::case::Case;

    const LIST: &str = "# why\nexclude node/a_*_x: wraps\nnode/b pass\nnode/c refused\n";

    fn tried(name: &str, outcome: Outcome) -> Tried {
        let case = Case { category: "node", name: name.into(), folder: name.into() };
        Tried { case, outcome, why: String::new() }
    }

    #[test]
    fn a_change_in_either_direction_is_seen_and_so_is_a_test_that_comes_or_goes() {
        let list = Expected::parse(LIST).unwrap();
        let same = [tried("b", Outcome::Pass), tried("c", Outcome::Refused)];
        assert_eq!(list.changes(&same), []);
        assert_eq!(list.written(&same), LIST);
        let changed = |tried: &[Tried]| {
            list.changes(tried).into_iter().map(|change| change.test).collect::<Vec<_>>()
        };
        assert_eq!(changed(&[tried("b", Outcome::Run), tried("c", Outcome::Refused)]), ["node/b"]);
        assert_eq!(changed(&[tried("b", Outcome::Pass), tried("c", Outcome::Pass)]), ["node/c"]);
        assert_eq!(changed(&[tried("b", Outcome::Pass)]), ["node/c"]);
        let more = [same.as_slice(), &[tried("d", Outcome::Pass)]].concat();
        assert_eq!(changed(&more), ["node/d"]);
    }

    #[test]
    fn a_pattern_leaves_out_what_it_fits_and_a_wrong_line_is_named() {
        let list = Expected::parse(LIST).unwrap();
        for (test, out) in
            [("node/a_1_x", true), ("node/a__x", true), ("node/a_x", false), ("node/b", false)]
        {
            assert_eq!(list.excludes(test), out, "{test}");
        }
        for wrong in ["node/b good", "node/b", "node/b pass\nnode/b pass", "exclude node/b"] {
            assert!(Expected::parse(wrong).is_err(), "{wrong}");
        }
    }
}
