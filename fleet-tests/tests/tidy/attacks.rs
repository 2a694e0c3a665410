//! The table of attacks in the threat model is what the tests are called.

use fleet_tests::attacks::table;

use crate::tree::{self, Tree};

const PAGE: &str = "docs/threat-model.md";
const TESTS: &str = "fleet-tests/tests/attacks";
/// The least that is tried.
const ATTACKS_MIN: usize = 40;

fn violations(tree: &Tree) -> Vec<String> {
    let mut rows = Vec::new();
    for name in table::files() {
        match tree.get(&format!("{TESTS}/{name}.rs")) {
            Some(file) => rows.extend(table::rows(name, &file.text)),
            None => return vec![format!("{TESTS}/{name}.rs is not there")],
        }
    }
    let mut found = Vec::new();
    if rows.len() < ATTACKS_MIN {
        found.push(format!("{TESTS}: {} attacks; at least {ATTACKS_MIN} are tried", rows.len()));
    }
    let Some(page) = tree.get(PAGE) else { return vec![format!("{PAGE} is not there")] };
    if table::replace(&page.text, &table::render(&rows)).as_deref() != Some(&page.text) {
        found.push(format!(
            "{PAGE}: run `cargo xtask attacks --write`, its table is not the tests'"
        ));
    }
    found
}

#[test]
fn the_table_of_attacks_is_what_the_tests_are_called() {
    tree::assert_none(&violations(&Tree::checkout()));
}

#[test]
fn a_test_that_is_not_in_the_table_is_caught() {
    let tests: Vec<(String, String)> = table::files()
        .map(|name| {
            let text = (0..20).map(|at| format!("#[test]\nfn {name}_{at}() {{}}\n")).collect();
            (format!("{TESTS}/{name}.rs"), text)
        })
        .collect();
    let rows: Vec<_> = tests
        .iter()
        .zip(table::files())
        .flat_map(|((_, text), name)| table::rows(name, text))
        .collect();
    let page = table::render(&rows);
    let tree = |page: &str| {
        let mut files: Vec<(&str, &str)> =
            tests.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        files.push((PAGE, page));
        Tree::of(&files)
    };
    assert_eq!(violations(&tree(&page)), [""; 0]);
    assert_eq!(violations(&tree(&page.replacen("machine 3", "machine three", 1))).len(), 1);
    assert_eq!(violations(&Tree::of(&[])).len(), 1);
}
