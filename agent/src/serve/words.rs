//! The words of the status page, in both languages.

/// The words of one language.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    /// Its code.
    pub lang: &'static str,
    /// Models can be asked.
    pub ready: &'static str,
    /// They cannot.
    pub not_ready: &'static str,
    /// Heading.
    pub gateway: &'static str,
    /// Heading.
    pub models: &'static str,
    /// Heading.
    pub slots: &'static str,
    /// Link.
    pub refresh: &'static str,
    /// Of the agent or a model.
    pub version: &'static str,
    /// Where the agent runs from.
    pub slot: &'static str,
    /// What the agent is of.
    pub release: &'static str,
    /// What computes.
    pub device: &'static str,
    /// Since the start.
    pub uptime: &'static str,
    /// Unit.
    pub days: &'static str,
    /// Unit.
    pub hours: &'static str,
    /// Unit.
    pub minutes: &'static str,
    /// Requests.
    pub answered: &'static str,
    /// Requests.
    pub failed: &'static str,
    /// Half of the answers were faster.
    pub latency_p50: &'static str,
    /// One in a hundred was slower.
    pub latency_p99: &'static str,
    /// Column.
    pub model: &'static str,
    /// Column.
    pub task: &'static str,
    /// Column.
    pub state: &'static str,
    /// Column: answers.
    pub per_second: &'static str,
    /// Column.
    pub tokens_per_second: &'static str,
    /// State of a model.
    pub loaded: &'static str,
    /// State of a model.
    pub not_loaded: &'static str,
    /// In place of the table.
    pub no_models: &'static str,
    /// In place of the slots.
    pub unknown: &'static str,
    /// Of the update.
    pub phase: &'static str,
    /// The release that holds.
    pub committed: &'static str,
    /// The release that is tried.
    pub trial: &'static str,
    /// What happened last.
    pub last: &'static str,
}

static ENGLISH: Words = Words {
    lang: "en",
    ready: "Models can be asked",
    not_ready: "Models cannot be asked",
    gateway: "This agent",
    models: "Models",
    slots: "Slots",
    refresh: "Refresh",
    version: "Version",
    slot: "Slot",
    release: "Release",
    device: "Computes on",
    uptime: "Running for",
    days: "d",
    hours: "h",
    minutes: "min",
    answered: "Answered",
    failed: "Failed",
    latency_p50: "Time, median",
    latency_p99: "Time, 99 %",
    model: "Model",
    task: "Task",
    state: "State",
    per_second: "Answers/s",
    tokens_per_second: "Tokens/s",
    loaded: "ready",
    not_loaded: "not loaded",
    no_models: "None can be asked now.",
    unknown: "Not known yet.",
    phase: "Phase",
    committed: "Committed",
    trial: "On trial",
    last: "Last",
};

static FRENCH: Words = Words {
    lang: "fr",
    ready: "Les modèles répondent",
    not_ready: "Les modèles ne répondent pas",
    gateway: "Cet agent",
    models: "Modèles",
    slots: "Emplacements",
    refresh: "Actualiser",
    version: "Version",
    slot: "Emplacement",
    release: "Livraison",
    device: "Calcule sur",
    uptime: "En marche depuis",
    days: "j",
    hours: "h",
    minutes: "min",
    answered: "Réponses",
    failed: "Échecs",
    latency_p50: "Durée, médiane",
    latency_p99: "Durée, 99 %",
    model: "Modèle",
    task: "Tâche",
    state: "État",
    per_second: "Réponses/s",
    tokens_per_second: "Jetons/s",
    loaded: "prêt",
    not_loaded: "non chargé",
    no_models: "Aucun ne répond pour l’instant.",
    unknown: "Pas encore connu.",
    phase: "Phase",
    committed: "Validée",
    trial: "À l’essai",
    last: "Dernier événement",
};

impl Words {
    /// Those of the first language of an `Accept-Language` header that is spoken here; its weights count.
    pub fn of(accepted: &str) -> &'static Self {
        let mut best: (&'static Self, u16) = (&ENGLISH, 0);
        for one in accepted.split(',') {
            let (range, weight) = one.split_once(';').unwrap_or((one, ""));
            let weight = weight.trim().strip_prefix("q=").map_or(1000, thousandths);
            let range = range.trim().to_ascii_lowercase();
            let words = match range.split('-').next() {
                Some("fr") => &FRENCH,
                Some("en") => &ENGLISH,
                Some(_) | None => continue,
            };
            if weight > best.1 {
                best = (words, weight);
            }
        }
        best.0
    }
}

fn thousandths(weight: &str) -> u16 {
    let weight: f32 = weight.trim().parse().unwrap_or(0.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=1000"
    )]
    let weight = (weight * 1000.0).clamp(0.0, 1000.0) as u16;
    weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_that_is_wanted_most_is_spoken() {
        for (accepted, expected) in [
            ("", "en"),
            ("fr", "fr"),
            ("fr-CA,fr;q=0.9,en;q=0.8", "fr"),
            ("de, en;q=0.5, fr;q=0.7", "fr"),
            ("en-GB, fr;q=0.9", "en"),
            ("de", "en"),
            ("fr;q=0", "en"),
            ("fr;q=NaN, en;q=0.1", "en"),
        ] {
            assert_eq!(Words::of(accepted).lang, expected, "{accepted}");
        }
    }
}
