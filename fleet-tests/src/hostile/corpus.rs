//! Every case.

use crate::hostile::{
    asks, blocks, bytes,
    case::{Case, Extent},
    descriptions, numbers, shapes, structure, tokenizers,
};

/// Every case, the packages first.
pub fn all() -> Vec<Case> {
    let parts = [
        bytes::cases,
        shapes::cases,
        structure::cases,
        numbers::cases,
        blocks::cases,
        tokenizers::cases,
        descriptions::cases,
        asks::cases,
    ];
    let mut all: Vec<Case> = parts.into_iter().flat_map(|cases| cases()).collect();
    all.push(Case::kill("worker/killed-while-it-serves").quick());
    all
}

/// Those that CI tries too.
pub fn quick() -> Vec<Case> {
    all().into_iter().filter(|case| case.extent == Extent::Quick).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_enough_cases_of_every_kind_and_no_two_have_one_name() {
        let all = all();
        assert!(all.len() >= 100, "{}", all.len());
        let names: BTreeSet<&str> = all.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), all.len());
        let kinds = |cases: &[Case]| -> BTreeSet<&str> {
            cases.iter().filter_map(|case| Some(case.name.split_once('/')?.0)).collect()
        };
        let quick = quick();
        let wanted = kinds(&all);
        let found = kinds(&quick);
        assert_eq!(found.len(), wanted.len(), "{wanted:?}: CI tries only {found:?}");
    }
}
