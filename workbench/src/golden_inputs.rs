//! What a new model is tried with, so that every device can tell whether it computes the same.

/// For models of texts: both languages, short and long, digits and accents.
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

/// For models of bytes: texts, programs and pictures, from a few bytes to more than a model looks at.
pub const GOLDEN_FILES: [&[u8]; 6] = [
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89",
    b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n",
    b"#!/bin/sh\nset -eu\nfor file in \"$@\"; do\n    gzip -9 \"$file\"\ndone\n",
    b"{\"name\": \"pump-3\", \"celsius\": 41.5, \"alarms\": [], \"since\": null}\n",
    "Le relevé de la pompe nº 3 est arrivé à 14 h 30 ; rien à signaler.\n".as_bytes(),
    &[0; 5000],
];
