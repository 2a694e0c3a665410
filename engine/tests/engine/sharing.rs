//! A worker shared by many: what is computed together, what goes first, what is kept in memory.

use std::{collections::BTreeMap, thread};

use engine::{
    embedder::LongText,
    encoder_spec::InputKind,
    package::Spec,
    pooling::cosine,
    worker::{
        failure::FailureKind,
        frame,
        message::{
            Call, ModelState, ModelStatistics, Priority, Reply, Request, Response, Terms,
            WorkerStatistics,
        },
        policy::Policy,
        wire::{self, Frames},
    },
};

use crate::{
    fixture::{embedder, lay_embedder, slot},
    worker::{WAIT, Worker, empty, refused},
};

fn embed(model: &str, texts: Vec<String>, terms: Terms) -> Call {
    Call::Embed { model: model.into(), texts, long: LongText::Cut, kind: InputKind::Plain, terms }
}

fn statistics(worker: &Worker) -> WorkerStatistics {
    let Reply::Statistics(statistics) = worker.client().call(Call::Statistics).unwrap() else {
        panic!("no statistics")
    };
    statistics
}

fn of<'s>(statistics: &'s WorkerStatistics, version: &str) -> &'s ModelStatistics {
    statistics.models.iter().find(|model| model.version == version).unwrap()
}

#[test]
fn requests_of_many_connections_are_computed_together_and_each_gets_its_own() {
    let worker = Worker::start(slot().0);
    worker.client().call(Call::Load { model: "it-faq".into() }).unwrap();
    let texts: Vec<String> =
        (0..48).map(|at| format!("question {at} about printer {}", at * 7)).collect();
    // The first one occupies the lane; what comes meanwhile waits, and is taken together.
    let occupied = "a long text that takes the only lane for a while ".repeat(30);
    let mut stream = worker.stream();
    let first = embed("it-faq", vec![occupied; 20], Terms::default());
    wire::write(&mut stream, &Request { id: 1, call: first }).unwrap();
    thread::scope(|scope| {
        for part in texts.chunks(12) {
            let worker = &worker;
            scope.spawn(move || {
                let mut stream = worker.stream();
                for (text, id) in part.iter().zip(0..) {
                    let call = embed("it-faq", vec![text.clone()], Terms::default());
                    wire::write(&mut stream, &Request { id, call }).unwrap();
                }
                let mut responses = Frames::new(stream);
                for _ in part {
                    let body = responses.next(Some(WAIT)).unwrap().unwrap();
                    let Response { id, reply } = frame::decode(&body).unwrap();
                    let Reply::Embeddings(found) = reply else { panic!("{reply:?}") };
                    let text = &part[usize::try_from(id).unwrap()];
                    let alone = embedder().embed_one(text, InputKind::Plain).unwrap().vector;
                    assert!(cosine(&found.vectors()[0], &alone) > 0.999, "{text}");
                }
            });
        }
    });
    let body = Frames::new(stream).next(Some(WAIT)).unwrap().unwrap();
    let response: Response = frame::decode(&body).unwrap();
    assert!(matches!(response.reply, Reply::Embeddings(found) if found.tokens.len() == 20));
    let statistics = statistics(&worker);
    let model = of(&statistics, "1");
    assert_eq!((model.requests, model.items), (49, 68));
    assert_eq!(model.batch_items.sum, 68, "every item was in one batch");
    assert_eq!(model.batch_tokens.sum, model.tokens);
    assert!(model.batch_items.count() < 49, "some were computed together: {:?}", model.batch_items);
    assert_eq!((model.queue_us.count(), model.prepare_us.count()), (49, 49));
    assert!(
        model.failures.iter().all(|(_, count)| *count == 0)
            && model.failures.len() == FailureKind::ALL.len()
    );
    assert_eq!((statistics.waiting_requests, statistics.waiting_tokens), (0, 0));
    worker.stop();
}

#[test]
fn what_comes_too_late_is_said_and_short_ones_pass_a_large_one() {
    let worker = Worker::start(slot().0);
    worker.client().call(Call::Load { model: "it-faq".into() }).unwrap();
    let mut stream = worker.stream();
    let large = vec!["a text of the kind that comes in bulk, one of very many ".repeat(10); 60];
    let bulk = Terms { priority: Priority::Bulk, deadline_us: None };
    let late = Terms { priority: Priority::Interactive, deadline_us: Some(1) };
    let calls = [
        embed("it-faq", large, bulk),
        embed("it-faq", vec!["too late".into()], late),
        embed("it-faq", vec!["short".into()], Terms::default()),
    ];
    for (call, id) in calls.into_iter().zip(1..) {
        wire::write(&mut stream, &Request { id, call }).unwrap();
    }
    let mut order = Vec::new();
    let mut responses = Frames::new(stream);
    for _ in 0..3 {
        let body = responses.next(Some(WAIT)).unwrap().unwrap();
        let Response { id, reply } = frame::decode(&body).unwrap();
        match (id, reply) {
            (2, Reply::Failed(failure)) => assert_eq!(failure.kind, FailureKind::Expired),
            (1, Reply::Embeddings(found)) => assert_eq!(found.tokens.len(), 60),
            (3, Reply::Embeddings(found)) => assert_eq!(found.tokens.len(), 1),
            (id, reply) => panic!("{id}: {reply:?}"),
        }
        order.push(id);
    }
    assert_eq!(order.last(), Some(&1), "the large one is done last: {order:?}");
    let statistics = statistics(&worker);
    let failures: BTreeMap<_, _> = of(&statistics, "1").failures.iter().copied().collect();
    assert_eq!(failures[&FailureKind::Expired], 1);
    worker.stop();
}

/// Versions 9, 10 and 11 of a model that takes 100 MiB.
fn versions() -> tempfile::TempDir {
    let slot = empty();
    for version in ["9", "10", "11"] {
        let mut spec = Spec::sentence_encoder("words", version, 384);
        spec.limits.memory_bytes = 100 << 20;
        lay_embedder(slot.path(), &spec);
    }
    slot
}

#[test]
fn versions_share_the_memory_and_the_least_recently_used_goes() {
    let two = Policy {
        memory_bytes: Some(200 << 20),
        pinned: vec!["words@11".into()],
        ..Policy::default()
    };
    let worker = Worker::under(two, versions());
    let mut client = worker.client();
    let mut loaded = |model: &str| {
        let word = vec!["word".to_owned()];
        client.call(embed(model, word, Terms::default())).unwrap();
        let Reply::Hello(info) = client.call(Call::hello()).unwrap() else { panic!("no hello") };
        assert_eq!(info.memory_bytes, 200 << 20);
        let newest = info.models.iter().filter(|model| model.newest).map(|model| &model.version);
        assert_eq!(newest.collect::<Vec<_>>(), ["11"]);
        let preload = info.models.iter().filter(|model| model.preload).map(|model| &model.version);
        assert_eq!(preload.collect::<Vec<_>>(), ["9", "11"]);
        let loaded = info.models.iter().filter(|model| model.state == ModelState::Loaded);
        loaded.map(|model| model.version.clone()).collect::<Vec<_>>()
    };
    assert_eq!(loaded("words"), ["11"], "the name alone means the newest");
    assert_eq!(loaded("words@9"), ["9", "11"]);
    assert_eq!(loaded("words@10"), ["10", "11"], "11 is pinned, so 9 went");
    let unload = |model: &str| worker.client().call(Call::Unload { model: model.into() });
    assert_eq!(unload("words@10").unwrap(), Reply::Unloaded);
    assert!(refused(unload("words@11")).1.contains("pinned"));
    let found = statistics(&worker);
    assert_eq!(found.loaded_bytes, 100 << 20);
    assert_eq!((of(&found, "10").loads, of(&found, "10").unloads), (1, 1));
    worker.stop();
}

#[test]
fn a_model_that_does_not_fit_alone_says_what_to_do() {
    let small = Policy { memory_bytes: Some(90 << 20), ..Policy::default() };
    let worker = Worker::under(small, versions());
    let (kind, said) = refused(worker.client().call(Call::Load { model: "words".into() }));
    assert_eq!(kind, FailureKind::NoMemory);
    assert!(said.contains("asks for 100 MiB of memory, models may take 90 MiB together"), "{said}");
    assert_eq!(worker.client().call(Call::Ping).unwrap(), Reply::Pong);
    worker.stop();
}
