//! What the console says, in English and in French.

/// A language of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// French.
    French,
}

/// All fixed texts of the page.
#[derive(Debug)]
pub struct Words {
    /// Language tag.
    pub tag: &'static str,
    /// The other language's tag.
    pub other_tag: &'static str,
    /// The other language's own name.
    pub other_name: &'static str,
    /// Heading before the fleet's name.
    pub fleet: &'static str,
    /// Broker connected.
    pub broker_up: &'static str,
    /// Broker away.
    pub broker_down: &'static str,
    /// Heading.
    pub devices: &'static str,
    /// Column headings of devices.
    pub device_columns: [&'static str; 8],
    /// No devices.
    pub no_devices: &'static str,
    /// Connected.
    pub online: &'static str,
    /// Not connected.
    pub offline: &'static str,
    /// Nothing committed.
    pub factory: &'static str,
    /// Never heard of.
    pub never: &'static str,
    /// Heading.
    pub rollout: &'static str,
    /// No rollout.
    pub no_rollout: &'static str,
    /// Word before a release's name.
    pub release: &'static str,
    /// Words of the gate, with places for share, sample and seconds.
    pub gate: [&'static str; 4],
    /// Heading.
    pub events: &'static str,
    /// Column headings of events.
    pub event_columns: [&'static str; 5],
    /// No events.
    pub no_events: &'static str,
    /// Heading.
    pub refused: &'static str,
    /// Nothing refused.
    pub none_refused: &'static str,
    /// Label of the token field.
    pub token: &'static str,
    /// Where the token is.
    pub token_hint: &'static str,
    /// Button.
    pub log_in: &'static str,
    /// Button.
    pub log_out: &'static str,
    /// Wrong token.
    pub wrong_token: &'static str,
    /// Times are UTC.
    pub utc: &'static str,
    /// Link that skips to the content.
    pub skip: &'static str,
}

static ENGLISH: Words = Words {
    tag: "en",
    other_tag: "fr",
    other_name: "Français",
    fleet: "Fleet",
    broker_up: "broker connected",
    broker_down: "broker not reachable",
    devices: "Devices",
    device_columns: [
        "Name",
        "Id",
        "Environment",
        "State",
        "Runs",
        "On trial",
        "Phase",
        "Last heard of",
    ],
    no_devices: "No device has enrolled yet. Make a token with “socle device enrol”.",
    online: "online",
    offline: "offline",
    factory: "factory",
    never: "never",
    rollout: "Rollout",
    no_rollout: "No rollout yet. Start one with “socle rollout start”.",
    release: "Release",
    gate: ["Gate: at least ", " % of results are commits, at least ", " results, ", " s each"],
    events: "Live events",
    event_columns: ["Received", "Device", "Event", "Release", "Detail"],
    no_events: "No events yet.",
    refused: "Refused messages",
    none_refused: "None.",
    token: "Admin token",
    token_hint: "It is in the file “admin-token” of the controller’s state folder.",
    log_in: "Log in",
    log_out: "Log out",
    wrong_token: "That is not the admin token.",
    utc: "All times in UTC.",
    skip: "Skip to content",
};

static FRENCH: Words = Words {
    tag: "fr",
    other_tag: "en",
    other_name: "English",
    fleet: "Flotte",
    broker_up: "courtier connecté",
    broker_down: "courtier injoignable",
    devices: "Appareils",
    device_columns: [
        "Nom",
        "Identifiant",
        "Environnement",
        "État",
        "Exécute",
        "À l’essai",
        "Phase",
        "Dernier signe",
    ],
    no_devices: "Aucun appareil inscrit. Créez un jeton avec « socle device enrol ».",
    online: "en ligne",
    offline: "hors ligne",
    factory: "usine",
    never: "jamais",
    rollout: "Déploiement",
    no_rollout: "Aucun déploiement. Lancez-en un avec « socle rollout start ».",
    release: "Version",
    gate: ["Seuil : au moins ", " % de réussites, au moins ", " résultats, ", " s chacun"],
    events: "Événements en direct",
    event_columns: ["Reçu", "Appareil", "Événement", "Version", "Détail"],
    no_events: "Aucun événement pour l’instant.",
    refused: "Messages refusés",
    none_refused: "Aucun.",
    token: "Jeton d’administration",
    token_hint: "Il se trouve dans le fichier « admin-token » du dossier d’état du contrôleur.",
    log_in: "Se connecter",
    log_out: "Se déconnecter",
    wrong_token: "Ce n’est pas le jeton d’administration.",
    utc: "Toutes les heures sont en UTC.",
    skip: "Aller au contenu",
};

/// Words that come from the API, in French; English shows them as they are.
static TRANSLATED: [(&str, &str); 31] = [
    ("running", "en cours"),
    ("complete", "terminé"),
    ("halted", "arrêté"),
    ("pending", "en attente"),
    ("passed", "franchie"),
    ("failed", "échec"),
    ("assigned", "assignée"),
    ("committed", "validée"),
    ("rolled-back", "annulée"),
    ("timed-out", "délai dépassé"),
    ("unreachable", "injoignable"),
    ("started", "démarré"),
    ("accepted", "acceptée"),
    ("refused", "refusée"),
    ("fetched", "téléchargée"),
    ("staged", "préparée"),
    ("loaded", "chargée"),
    ("golden", "jeu de référence réussi"),
    ("armed", "armée"),
    ("probation", "en probation"),
    ("worker-restarted", "processus relancé"),
    ("alarm", "alarme"),
    ("unknown-topic", "sujet inconnu"),
    ("foreign", "d’un autre émetteur"),
    ("unknown-device", "appareil inconnu"),
    ("malformed", "mal formé"),
    ("bad-signature", "signature fausse"),
    ("unknown-seal-key", "clé de scellement inconnue"),
    ("unopenable", "impossible à ouvrir"),
    ("replayed", "rejoué"),
    ("steady", "stable"),
];

impl Language {
    /// The language asked for: by the address (`?lang=fr`), else by the browser's preferences, else English.
    pub fn chosen(asked: Option<&str>, accepted: Option<&str>) -> Self {
        let named = |tag: &str| match tag.trim().get(..2)?.to_ascii_lowercase().as_str() {
            "fr" => Some(Self::French),
            "en" => Some(Self::English),
            _ => None,
        };
        if let Some(language) = asked.and_then(named) {
            return language;
        }
        let mut best = (0.0, Self::English);
        for part in accepted.unwrap_or_default().split(',') {
            let (tag, quality) = part.split_once(";q=").unwrap_or((part, "1"));
            let quality: f32 = quality.trim().parse().unwrap_or(0.0);
            if let Some(language) = named(tag).filter(|_| quality > best.0) {
                best = (quality, language);
            }
        }
        best.1
    }

    /// Its words.
    pub const fn words(self) -> &'static Words {
        match self {
            Self::English => &ENGLISH,
            Self::French => &FRENCH,
        }
    }

    /// A word of the API in this language.
    pub fn word(self, api: &str) -> &str {
        match self {
            Self::English => api,
            Self::French => TRANSLATED
                .iter()
                .find(|(english, _)| *english == api)
                .map_or(api, |(_, french)| french),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{link::judge::REASONS, waves::Status};

    #[test]
    fn the_language_is_the_one_asked_for() {
        use Language::{English, French};
        let cases = [
            (None, None, English),
            (Some("fr"), Some("en"), French),
            (Some("en"), Some("fr"), English),
            (Some("de"), Some("fr-CH, en;q=0.8"), French),
            (None, Some("en-GB,en;q=0.9,fr;q=0.8"), English),
            (None, Some("en;q=0.5, fr;q=0.9"), French),
            (None, Some("de, ja"), English),
            (Some("é"), Some("x"), English),
        ];
        for (asked, accepted, expected) in cases {
            assert_eq!(Language::chosen(asked, accepted), expected, "{asked:?} {accepted:?}");
        }
    }

    #[test]
    fn every_status_and_reason_has_its_french_word() {
        let statuses = Status::ALL.into_iter().map(Status::as_str);
        for word in statuses.chain(REASONS) {
            assert_ne!(Language::French.word(word), word, "{word}");
            assert_eq!(Language::English.word(word), word);
        }
    }
}
