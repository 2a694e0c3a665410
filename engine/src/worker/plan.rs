//! What is computed next. Pure: a queue and a moment in, one batch out.
//!
//! - Nothing waits for company: whoever asks for a plan gets what is there, so a lone request starts at once.
//! - A batch is of one model, up to a budget of tokens and of sequences. A sequence above the budget is a batch alone.
//! - Interactive requests go before bulk ones, within either the earliest deadline goes first. A request without a
//!   deadline is taken as if it had one [`Policy::patience_us`] after its arrival, and a later one counts no more than
//!   that: whatever waits becomes the earliest in the end.
//! - A request above the budget is bulk, whatever it says: it is computed in parts, and others go between them.
//! - While interactive requests keep coming, every [`Policy::bulk_every`]th batch is led by a bulk one. So bulk does
//!   not starve, and never holds others up for more than one batch.

use std::{cmp::Reverse, collections::BTreeMap, ops::Range};

use crate::worker::message::Priority;

/// Names a request in the queue, in the order of arrival.
pub type Ticket = u64;
/// Names a loaded model.
pub type ModelKey = u64;

/// A request that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its name; none is given twice.
    pub ticket: Ticket,
    /// Who computes it.
    pub model: ModelKey,
    /// What goes first.
    pub priority: Priority,
    /// When nobody wants it any more.
    pub deadline_us: Option<u64>,
    /// When it came.
    pub arrived_us: u64,
    /// Tokens of each of its sequences.
    pub lengths: Vec<u32>,
    /// How many of its sequences were taken already.
    pub taken: usize,
}

/// What one batch may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most tokens.
    pub tokens_max: u64,
    /// Most sequences.
    pub sequences_max: usize,
}

/// What holds for all models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The deadline of a request that names none, counted from its arrival.
    pub patience_us: u64,
    /// Of so many batches one is led by a bulk request while interactive ones wait too.
    pub bulk_every: u32,
}

/// What is known from one plan to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turn {
    /// Batches since a bulk request that waited was served.
    pub bulk_waits: u32,
}

/// Sequences of one request in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// Whose.
    pub ticket: Ticket,
    /// Which of its sequences.
    pub sequences: Range<usize>,
}

/// What to do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Requests whose deadline passed: they leave the queue uncomputed.
    pub expired: Vec<Ticket>,
    /// What to compute together, all of one model; empty when nothing waits.
    pub takes: Vec<Take>,
    /// The tokens of it.
    pub tokens: u64,
    /// What to plan with the next time.
    pub turn: Turn,
}

/// Less is earlier: class, due time, arrival.
type Rank = (bool, u64, Ticket);

/// What to do with `queue` at `now_us`. `budget` says what a batch of a model may hold.
pub fn plan(
    queue: &[Waiting],
    now_us: u64,
    policy: &Policy,
    turn: Turn,
    budget: impl Fn(ModelKey) -> Budget,
) -> Plan {
    let (expired, live): (Vec<_>, Vec<_>) = queue.iter().partition(|one| one.expired(now_us));
    let expired = expired.iter().map(|one| one.ticket).collect();
    let budgets: BTreeMap<ModelKey, Budget> =
        live.iter().map(|one| (one.model, budget(one.model))).collect();
    let budget = |model| budgets.get(&model).copied().unwrap_or(Budget::ONE);
    let rank = |one: &Waiting| -> Rank {
        let due_us = one.arrived_us.saturating_add(policy.patience_us);
        let due_us = one.deadline_us.map_or(due_us, |deadline_us| deadline_us.min(due_us));
        (one.is_bulk(budget(one.model)), due_us, one.ticket)
    };
    let (bulk, interactive): (Vec<&Waiting>, Vec<&Waiting>) =
        live.iter().copied().partition(|one| rank(one).0);
    let bulks_turn = !bulk.is_empty() && turn.bulk_waits.saturating_add(1) >= policy.bulk_every;
    let lead_of = |ones: &[&Waiting]| ones.iter().map(|one| (rank(one), one.model)).min();
    let leader = match (bulks_turn, lead_of(&bulk), lead_of(&interactive)) {
        (true, Some(bulk), _) | (false, Some(bulk), None) => bulk,
        (_, _, Some(interactive)) => interactive,
        (_, None, None) => return Plan { expired, turn: Turn::default(), ..Plan::default() },
    };
    let ((_, _, first), model) = leader;
    let mut mates: Vec<&Waiting> = live.into_iter().filter(|one| one.model == model).collect();
    mates.sort_by_key(|one| (Reverse(one.ticket == first), rank(one)));
    let (takes, tokens) = fill(&mates, budget(model));
    let served_bulk = takes.iter().any(|take| bulk.iter().any(|one| one.ticket == take.ticket));
    let bulk_waits =
        if bulk.is_empty() || served_bulk { 0 } else { turn.bulk_waits.saturating_add(1) };
    Plan { expired, takes, tokens, turn: Turn { bulk_waits } }
}

/// Takes from `mates` in their order what fits. The first sequence fits always.
fn fill(mates: &[&Waiting], budget: Budget) -> (Vec<Take>, u64) {
    let (mut takes, mut tokens, mut sequences) = (Vec::new(), 0_u64, 0_usize);
    for one in mates {
        let mut end = one.taken;
        for length in one.lengths.iter().skip(one.taken) {
            let with = tokens.saturating_add(u64::from(*length));
            let first = sequences == 0;
            if !first && (with > budget.tokens_max || sequences >= budget.sequences_max.max(1)) {
                break;
            }
            (tokens, sequences, end) = (with, sequences + 1, end + 1);
        }
        if end > one.taken {
            takes.push(Take { ticket: one.ticket, sequences: one.taken..end });
        }
        // Whoever comes later may not overtake one that found no room, or long ones would wait for ever.
        if end < one.lengths.len() {
            break;
        }
    }
    (takes, tokens)
}

impl Waiting {
    /// Tokens that are not taken yet.
    pub fn tokens(&self) -> u64 {
        self.lengths.iter().skip(self.taken).map(|length| u64::from(*length)).sum()
    }

    fn expired(&self, now_us: u64) -> bool {
        self.deadline_us.is_some_and(|deadline_us| deadline_us <= now_us)
    }

    /// Its size as it came counts: what is left of a large request is still bulk.
    fn is_bulk(&self, budget: Budget) -> bool {
        let tokens: u64 = self.lengths.iter().map(|length| u64::from(*length)).sum();
        let large = tokens > budget.tokens_max || self.lengths.len() > budget.sequences_max;
        match self.priority {
            Priority::Bulk => true,
            Priority::Interactive => large && self.lengths.len() > 1,
        }
    }
}

impl Budget {
    /// One sequence at a time.
    pub const ONE: Self = Self { tokens_max: 1, sequences_max: 1 };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy { patience_us: 10_000, bulk_every: 4 };
    const BUDGET: Budget = Budget { tokens_max: 100, sequences_max: 8 };

    fn one(ticket: Ticket, lengths: &[u32]) -> Waiting {
        Waiting {
            ticket,
            model: 0,
            priority: Priority::Interactive,
            deadline_us: None,
            arrived_us: ticket,
            lengths: lengths.to_vec(),
            taken: 0,
        }
    }

    fn bulk(ticket: Ticket, lengths: &[u32]) -> Waiting {
        Waiting { priority: Priority::Bulk, ..one(ticket, lengths) }
    }

    fn takes(queue: &[Waiting], turn: Turn) -> Vec<(Ticket, Range<usize>)> {
        let plan = plan(queue, 1_000, &POLICY, turn, |_| BUDGET);
        plan.takes.into_iter().map(|take| (take.ticket, take.sequences)).collect()
    }

    #[test]
    fn a_lone_request_starts_at_once_and_company_is_taken_along() {
        assert_eq!(takes(&[one(1, &[5])], Turn::default()), [(1, 0..1)]);
        let queue = [one(1, &[30]), one(2, &[30, 30]), one(3, &[30]), one(4, &[5])];
        assert_eq!(
            takes(&queue, Turn::default()),
            [(1, 0..1), (2, 0..2)],
            "nobody overtakes the third"
        );
        assert_eq!(takes(&[], Turn::default()), []);
    }

    #[test]
    fn the_earliest_deadline_leads_and_bulk_follows() {
        let soon = Waiting { deadline_us: Some(2_000), ..one(9, &[60]) };
        let queue = [bulk(1, &[60]), one(2, &[60]), soon];
        assert_eq!(takes(&queue, Turn::default()), [(9, 0..1)]);
        let queue = [bulk(1, &[20, 20, 60]), one(2, &[60])];
        assert_eq!(
            takes(&queue, Turn::default()),
            [(2, 0..1), (1, 0..2)],
            "bulk fills what is left"
        );
    }

    #[test]
    fn a_batch_is_of_one_model() {
        let other = Waiting { model: 1, ..one(1, &[5]) };
        assert_eq!(takes(&[one(2, &[5]), other, one(3, &[5])], Turn::default()), [(1, 0..1)]);
    }

    #[test]
    fn a_large_request_is_computed_in_parts_and_others_go_between() {
        let mut large = one(1, &[40; 10]);
        assert_eq!(takes(&[large.clone()], Turn::default()), [(1, 0..2)]);
        large.taken = 2;
        assert_eq!(takes(&[large.clone(), one(2, &[10])], Turn::default()), [(2, 0..1), (1, 2..4)]);
        assert_eq!(takes(&[one(3, &[500]), one(4, &[5])], Turn::default()), [(3, 0..1)]);
    }

    #[test]
    fn bulk_leads_when_it_is_its_turn() {
        let queue = [bulk(1, &[90, 90]), one(2, &[90]), one(3, &[90])];
        let mut turn = Turn::default();
        let mut led = Vec::new();
        for _ in 0..8 {
            let plan = plan(&queue, 1_000, &POLICY, turn, |_| BUDGET);
            led.push(plan.takes[0].ticket);
            turn = plan.turn;
        }
        assert_eq!(led, [2, 2, 2, 1, 2, 2, 2, 1]);
    }

    #[test]
    fn what_came_too_late_is_not_computed() {
        let late = Waiting { deadline_us: Some(1_000), ..one(1, &[5]) };
        let plan = plan(&[late, one(2, &[5])], 1_000, &POLICY, Turn::default(), |_| BUDGET);
        assert_eq!((plan.expired, plan.takes.len(), plan.takes[0].ticket), (vec![1], 1, 2));
    }

    #[derive(Debug, Clone)]
    struct Arrival {
        after_us: u64,
        model: ModelKey,
        bulk: bool,
        within_us: Option<u64>,
        lengths: Vec<u32>,
    }

    fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
        let lengths = prop_oneof![
            8 => proptest::collection::vec(1_u32..60, 1..4),
            1 => proptest::collection::vec(1_u32..300, 10..40),
        ];
        let arrival =
            (0_u64..200, 0..3_u64, any::<bool>(), proptest::option::of(1_u64..5_000), lengths);
        let arrival = arrival.prop_map(|(after_us, model, bulk, within_us, lengths)| Arrival {
            after_us,
            model,
            bulk,
            within_us,
            lengths,
        });
        proptest::collection::vec(arrival, 1..80)
    }

    proptest! {
        /// One lane that computes a token in a microsecond.
        #[test]
        fn over_any_history_each_request_is_computed_whole_once_or_expires(arrivals in arrivals()) {
            let budget = |model: ModelKey| Budget { tokens_max: 50 * (model + 1), sequences_max: 6 };
            let (mut now_us, mut turn, mut queue) = (0, Turn::default(), Vec::<Waiting>::new());
            let mut coming = arrivals.iter().zip(1..).peekable();
            let mut next_us = coming.peek().map_or(0, |(arrival, _)| arrival.after_us);
            let mut answered = Vec::new();
            let (mut bulk_waited, mut rounds) = (0, 0);
            while coming.peek().is_some() || !queue.is_empty() {
                rounds += 1;
                prop_assert!(rounds < 100_000, "every plan brings the history forward");
                while next_us <= now_us && let Some((arrival, ticket)) = coming.next() {
                    queue.push(Waiting {
                        ticket,
                        model: arrival.model,
                        priority: if arrival.bulk { Priority::Bulk } else { Priority::Interactive },
                        deadline_us: arrival.within_us.map(|within_us| next_us + within_us),
                        arrived_us: next_us,
                        lengths: arrival.lengths.clone(),
                        taken: 0,
                    });
                    next_us += coming.peek().map_or(0, |(arrival, _)| arrival.after_us);
                }
                let plan = plan(&queue, now_us, &POLICY, turn, budget);
                turn = plan.turn;
                let find = |ticket: Ticket| queue.iter().position(|one| one.ticket == ticket).unwrap();
                for ticket in &plan.expired {
                    let gone = &queue[find(*ticket)];
                    prop_assert!(gone.deadline_us.is_some_and(|deadline_us| deadline_us <= now_us));
                }
                let live = queue.iter().filter(|one| !plan.expired.contains(&one.ticket));
                prop_assert_eq!(plan.takes.is_empty(), live.clone().next().is_none(), "nothing idles");
                let is_bulk = |one: &Waiting| one.is_bulk(budget(one.model));
                let has_bulk = live.clone().any(is_bulk);
                let (mut tokens, mut sequences, mut took_bulk) = (0, 0, false);
                let mut models = Vec::new();
                for take in &plan.takes {
                    let one = &queue[find(take.ticket)];
                    prop_assert_eq!(take.sequences.start, one.taken, "in order, none left out, none twice");
                    prop_assert!(take.sequences.end > one.taken && !plan.expired.contains(&take.ticket));
                    tokens += one.lengths[take.sequences.clone()].iter().map(|n| u64::from(*n)).sum::<u64>();
                    sequences += take.sequences.len();
                    took_bulk |= is_bulk(one);
                    models.push(one.model);
                }
                prop_assert_eq!(tokens, plan.tokens);
                models.dedup();
                prop_assert!(models.len() <= 1);
                if let Some(model) = models.first() {
                    let budget = budget(*model);
                    prop_assert!(sequences <= budget.sequences_max);
                    prop_assert!(tokens <= budget.tokens_max || sequences == 1);
                }
                bulk_waited = if has_bulk && !took_bulk { bulk_waited + 1 } else { 0 };
                prop_assert!(bulk_waited < POLICY.bulk_every, "bulk does not starve");
                for ticket in &plan.expired {
                    answered.push(*ticket);
                    queue.retain(|one| one.ticket != *ticket);
                }
                for take in &plan.takes {
                    let at = queue.iter().position(|one| one.ticket == take.ticket).unwrap();
                    queue[at].taken = take.sequences.end;
                    if queue[at].taken == queue[at].lengths.len() {
                        answered.push(queue.remove(at).ticket);
                    }
                }
                now_us += plan.tokens.max(1);
                if queue.is_empty() {
                    now_us = now_us.max(next_us);
                }
            }
            answered.sort_unstable();
            prop_assert_eq!(answered, (1..=arrivals.len() as u64).collect::<Vec<_>>());
        }

        #[test]
        fn among_interactive_requests_of_one_model_no_later_deadline_goes_first(
            deadlines in proptest::collection::vec(1_001_u64..9_000, 1..20),
        ) {
            let queue = deadlines.iter().zip(1..).map(|(deadline_us, ticket)| Waiting {
                deadline_us: Some(*deadline_us), ..one(ticket, &[40])
            });
            let queue: Vec<Waiting> = queue.collect();
            let plan = plan(&queue, 1_000, &POLICY, Turn::default(), |_| BUDGET);
            let due = |ticket: Ticket| deadlines[usize::try_from(ticket).unwrap() - 1];
            let taken: Vec<Ticket> = plan.takes.iter().map(|take| take.ticket).collect();
            let latest_taken = taken.iter().map(|ticket| due(*ticket)).max().unwrap();
            for left in queue.iter().filter(|one| !taken.contains(&one.ticket)) {
                prop_assert!(due(left.ticket) >= latest_taken);
            }
        }
    }
}
