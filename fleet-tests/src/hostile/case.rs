//! What is tried: a package that is offered as the next release, or something that is asked of the good model.

use std::collections::BTreeMap;

/// The files of a package by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// One case.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Whether CI tries it too.
    pub extent: Extent,
    /// Whether what is offered may serve in the end.
    pub may_serve: MayServe,
    /// What the reported reason has to say; nothing where there are several good ones.
    pub because: &'static str,
    /// What is done.
    pub act: Act,
}

/// Whether a hostile package may serve in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayServe {
    /// No: it must be given up.
    No,
    /// Yes: what is wrong with it has no effect, and it answers as the good one does.
    Yes,
}

/// Whether CI tries it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Yes.
    Quick,
    /// Only the full form does.
    Full,
}

/// What is done.
pub enum Act {
    /// A release is offered whose package is made from the good one's files.
    Offer(Box<dyn Fn(&mut Files)>),
    /// The good model is asked.
    Ask(Box<dyn Fn() -> Ask>),
    /// The worker that serves the good model is killed.
    Kill,
}

/// A request as bytes, and the statuses that are right.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Everything from the first line to the last byte of the body.
    pub bytes: Vec<u8>,
    /// Right answers: a status, or a closed connection (0) where the head itself is wrong.
    pub right: &'static [u16],
}

impl Case {
    /// Nothing but `act`, which the full form tries, and after which nothing hostile serves.
    fn new(name: &'static str, act: Act) -> Self {
        Self { name, extent: Extent::Full, may_serve: MayServe::No, because: "", act }
    }

    /// A package that differs from the good one by `change`.
    pub fn offer(name: &'static str, change: impl Fn(&mut Files) + 'static) -> Self {
        Self::new(name, Act::Offer(Box::new(change)))
    }

    /// A package with another `model.onnx`.
    pub fn model(name: &'static str, onnx: impl Fn() -> Vec<u8> + 'static) -> Self {
        Self::offer(name, move |files| drop(files.insert("model.onnx".into(), onnx())))
    }

    /// Something asked.
    pub fn ask(name: &'static str, ask: impl Fn() -> Ask + 'static) -> Self {
        Self::new(name, Act::Ask(Box::new(ask)))
    }

    /// The end of the worker that serves.
    pub fn kill(name: &'static str) -> Self {
        Self::new(name, Act::Kill)
    }

    /// What the reported reason has to say.
    #[must_use]
    pub fn because(self, because: &'static str) -> Self {
        Self { because, ..self }
    }

    /// What is wrong with it has no effect.
    #[must_use]
    pub fn harmless(self) -> Self {
        Self { may_serve: MayServe::Yes, ..self }
    }

    /// CI tries it too.
    #[must_use]
    pub fn quick(self) -> Self {
        Self { extent: Extent::Quick, ..self }
    }
}
