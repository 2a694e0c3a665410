//! What a new encoder is asked so that every device can tell whether it computes the same.

/// Both languages, short and long, digits and accents.
pub const GOLDEN_TEXTS: [&str; 8] = [
    "How do I reset my password?",
    "Comment réinitialiser mon mot de passe ?",
    "The printer on the third floor prints blank pages.",
    "L'imprimante du troisième étage sort des pages blanches.",
    "VPN",
    "Mon ordinateur portable ne démarre plus depuis la mise à jour de 14 h 30 ; l'écran reste noir et le voyant clignote trois fois.",
    "I would like to know who decides on access to the shared drive of another department, how long it takes, and whether my manager has to agree in writing beforehand.",
    "What is the capital of Australia?",
];
