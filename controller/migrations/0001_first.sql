-- Times are milliseconds since 1970 in UTC; digests and device ids are lowercase hexadecimal.

CREATE TABLE devices (
    id                TEXT PRIMARY KEY,
    public            BLOB NOT NULL,
    name              TEXT NOT NULL,
    labels            TEXT NOT NULL,
    enrolled_at       INTEGER NOT NULL,
    certificate_until INTEGER NOT NULL,
    revoked_at        INTEGER,
    last_seen         INTEGER,
    online            INTEGER NOT NULL DEFAULT 0,
    state             TEXT,
    state_sequence    INTEGER,
    state_at          INTEGER,
    -- Telemetry up to this sequence was stored once and has been pruned since.
    tele_floor        INTEGER NOT NULL DEFAULT 0,
    dropped           INTEGER NOT NULL DEFAULT 0,
    desired_sequence  INTEGER NOT NULL DEFAULT 0,
    desired           BLOB,
    desired_release   TEXT,
    desired_until     INTEGER
) STRICT;

CREATE TABLE tokens (
    id            TEXT PRIMARY KEY,
    secret_digest TEXT NOT NULL,
    root          TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    used_at       INTEGER,
    used_by       TEXT
) STRICT;

CREATE TABLE metadata (
    role         TEXT NOT NULL,
    version      INTEGER NOT NULL,
    digest       TEXT NOT NULL,
    bytes        BLOB NOT NULL,
    published_at INTEGER NOT NULL,
    PRIMARY KEY (role, version)
) STRICT;

CREATE TABLE releases (
    digest          TEXT PRIMARY KEY,
    name            TEXT NOT NULL UNIQUE,
    counter         INTEGER NOT NULL UNIQUE,
    targets_version INTEGER NOT NULL,
    manifest_bytes  INTEGER NOT NULL,
    agent_version   TEXT NOT NULL,
    published_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE rollouts (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    release    TEXT NOT NULL REFERENCES releases (digest),
    policy     TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('running', 'complete', 'halted')),
    reason     TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;

-- At most one rollout runs at a time.
CREATE UNIQUE INDEX one_rollout_runs ON rollouts (state) WHERE state = 'running';

CREATE TABLE assignments (
    rollout     INTEGER NOT NULL REFERENCES rollouts (id),
    device      TEXT NOT NULL REFERENCES devices (id),
    wave        INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,
    assigned_at INTEGER NOT NULL,
    status      TEXT NOT NULL,
    detail      TEXT NOT NULL DEFAULT '',
    decided_at  INTEGER,
    PRIMARY KEY (rollout, device)
) STRICT;

CREATE TABLE halts (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    release  TEXT NOT NULL,
    reason   TEXT NOT NULL,
    at       INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    device      TEXT NOT NULL REFERENCES devices (id),
    sequence    INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    release     TEXT,
    rollout     INTEGER NOT NULL,
    detail      TEXT NOT NULL,
    UNIQUE (device, sequence)
) STRICT;

CREATE INDEX events_of_release ON events (release, kind);

CREATE TABLE telemetry (
    device      TEXT NOT NULL REFERENCES devices (id),
    sequence    INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    vitals      TEXT NOT NULL,
    PRIMARY KEY (device, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE seal_keys (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
    private    BLOB NOT NULL,
    public     BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE refusals (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    reason TEXT NOT NULL,
    device TEXT,
    topic  TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE TABLE refusal_counts (
    reason      TEXT PRIMARY KEY,
    count       INTEGER NOT NULL,
    last_at     INTEGER NOT NULL,
    last_device TEXT,
    last_detail TEXT NOT NULL
) STRICT;
