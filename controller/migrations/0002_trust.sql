-- Environments: a device belongs to one, a release may be listed for several.
ALTER TABLE tokens ADD COLUMN environment TEXT NOT NULL DEFAULT 'prod';
ALTER TABLE devices ADD COLUMN environment TEXT NOT NULL DEFAULT 'prod';

CREATE TABLE release_environments (
    release     TEXT NOT NULL REFERENCES releases (digest),
    environment TEXT NOT NULL,
    PRIMARY KEY (release, environment)
) STRICT, WITHOUT ROWID;

-- Signed permits to go back: the object that holds one is served by its digest.
CREATE TABLE permits (
    digest       TEXT PRIMARY KEY,
    device       TEXT NOT NULL,
    release      TEXT NOT NULL,
    expires_at   INTEGER NOT NULL,
    published_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Releases with the environments for which the newest metadata lists them, separated by commas.
CREATE VIEW listed_releases AS
SELECT r.*, (SELECT group_concat(environment) FROM release_environments WHERE release = r.digest) AS environments
FROM releases r;
