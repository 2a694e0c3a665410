//! What machines go through.

use protocol::handover::Gate;

use crate::crash::machine::Step;

/// A history: what happened before, undisturbed, and what is disturbed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History {
    pub(crate) name: &'static str,
    pub(crate) before: &'static [Step],
    pub(crate) steps: &'static [Step],
}

const ONE: Step = Step::Take(1, "steady");
const TWO: Step = Step::Take(2, "steady");
const THREE: Step = Step::Take(3, "steady");

/// All of them. The first begins with an empty disk.
pub(crate) const HISTORIES: [History; 10] = [
    History { name: "enrolment and the first release", before: &[], steps: &[Step::Enrol, ONE] },
    History { name: "the first release", before: &[Step::Enrol], steps: &[ONE] },
    History { name: "a second one, under a new root", before: &[Step::Enrol, ONE], steps: &[TWO] },
    History {
        name: "a third one, in a used slot",
        before: &[Step::Enrol, ONE, TWO],
        steps: &[THREE],
    },
    History {
        name: "rolled back in probation, then the next",
        before: &[Step::Enrol, ONE],
        steps: &[Step::Take(2, "probation"), Step::Fail(Gate::Probation), THREE],
    },
    History {
        name: "every try spent",
        before: &[Step::Enrol, ONE, TWO],
        steps: &[
            Step::Take(3, "armed"),
            Step::Start,
            Step::Start,
            Step::CleanStop,
            Step::Start,
            Step::Start,
            Step::Start,
            // Enough of them, should the refund be given twice.
            Step::Start,
            Step::Take(2, "steady"),
        ],
    },
    History {
        name: "abandoned, then taken after all",
        before: &[Step::Enrol, ONE],
        steps: &[Step::Take(2, "staged"), Step::Abandon, TWO],
    },
    History {
        name: "replaced by a newer one at its gate",
        before: &[Step::Enrol, ONE],
        steps: &[Step::Take(2, "loaded"), Step::Replace(3), THREE],
    },
    History {
        name: "both copies of the record lost",
        before: &[Step::Enrol, ONE, TWO],
        steps: &[Step::LoseRecord, Step::Start, THREE],
    },
    History {
        name: "the first release given up",
        before: &[Step::Enrol],
        steps: &[Step::Take(1, "loaded"), Step::Fail(Gate::Golden), ONE],
    },
];
