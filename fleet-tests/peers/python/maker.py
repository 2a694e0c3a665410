"""A repository as python-tuf makes it: two roots, thresholds, delegations, hash bins, consistent snapshots.

Usage: maker.py FOLDER. In the folder stands `files/`, what is listed, by target path; `metadata/` and `pinned.json`, the
root to start from, are written.
"""

import datetime
import hashlib
import sys
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
MONTH = NOW + datetime.timedelta(days=30)


def signers(count):
    return [CryptoSigner.generate_ed25519() for _ in range(count)]


def targets_of(files, chosen):
    return {path: TargetFile.from_data(path, data) for path, data in files.items() if chosen(path)}


def delegate(delegations, name, keys, threshold, **scope):
    role = DelegatedRole(name, [], threshold, scope.pop("terminating", False), **scope)
    for key in keys:
        delegations.keys[key.public_key.keyid] = key.public_key
        role.keyids.append(key.public_key.keyid)
    delegations.roles[name] = role


def main():
    folder = Path(sys.argv[1])
    out = folder / "metadata"
    out.mkdir(exist_ok=True)
    below = folder / "files"
    files = {
        path.relative_to(below).as_posix(): path.read_bytes()
        for path in sorted(below.rglob("*"))
        if path.is_file()
    }

    def write(name, metadata, keys):
        for number, key in enumerate(keys):
            metadata.sign(key, append=number > 0)
        data = metadata.to_bytes(JSONSerializer(compact=is_compact(metadata)))
        (out / f"{name}.json").write_bytes(data)
        return data

    def is_compact(metadata):
        # Both forms of JSON that the library writes.
        return metadata.signed.type in ("timestamp", "root")

    roots, top, online = signers(3), signers(2), signers(2)
    root = Root(version=1, expires=NOW - datetime.timedelta(days=1), consistent_snapshot=True)
    old_targets, old_online = signers(1), signers(2)
    for key in roots:
        root.add_key(key.public_key, Root.type)
    root.add_key(old_targets[0].public_key, Targets.type)
    root.add_key(old_online[0].public_key, Snapshot.type)
    root.add_key(old_online[1].public_key, Timestamp.type)
    root.roles[Root.type].threshold = 2
    pinned = write("1.root", Metadata(root), roots[:2])
    (folder / "pinned.json").write_bytes(pinned)

    # All keys but one of the root's are replaced.
    new_roots = [roots[2], *signers(2)]
    root.version, root.expires = 2, MONTH
    for key in roots[:2]:
        root.revoke_key(key.public_key.keyid, Root.type)
    for key in new_roots[1:]:
        root.add_key(key.public_key, Root.type)
    root.revoke_key(old_targets[0].public_key.keyid, Targets.type)
    root.revoke_key(old_online[0].public_key.keyid, Snapshot.type)
    root.revoke_key(old_online[1].public_key.keyid, Timestamp.type)
    for key in top:
        root.add_key(key.public_key, Targets.type)
    root.roles[Targets.type].threshold = 2
    root.add_key(online[0].public_key, Snapshot.type)
    root.add_key(online[1].public_key, Timestamp.type)
    write("2.root", Metadata(root), [*roots[:2], *new_roots])

    prod, agent, bins = signers(3), signers(1), signers(1)
    delegations = Delegations({}, {})
    delegate(delegations, "prod", prod, 2, paths=["env/prod/*"], terminating=True)
    delegate(delegations, "agent", agent, 1, paths=["agent/*"])
    prefixes = {"bin-low": list("01234567"), "bin-high": list("89abcdef")}
    for name, hashes in prefixes.items():
        delegate(delegations, name, bins, 1, path_hash_prefixes=hashes)

    def in_bin(path, hashes):
        low = hashlib.sha256(path.encode()).hexdigest()[0] in hashes
        return low and path.startswith("models/")

    rest = ("env/prod/", "agent/", "models/")
    listed = {
        "targets": (
            Targets(
                version=9,
                expires=MONTH,
                targets=targets_of(files, lambda path: not path.startswith(rest)),
                delegations=delegations,
            ),
            top,
        ),
        "prod": (
            Targets(
                version=4,
                expires=MONTH,
                targets=targets_of(files, lambda path: path.startswith("env/prod/")),
            ),
            prod[1:],
        ),
        "agent": (
            Targets(
                version=1,
                expires=MONTH,
                targets=targets_of(files, lambda path: path.startswith("agent/")),
            ),
            agent,
        ),
    }
    for name, hashes in prefixes.items():
        chosen = targets_of(files, lambda path, hashes=hashes: in_bin(path, hashes))
        listed[name] = (Targets(version=2, expires=MONTH, targets=chosen), bins)

    snapshot = Snapshot(version=7, expires=MONTH)
    for name, (targets, keys) in listed.items():
        data = write(f"{targets.version}.{name}", Metadata(targets), keys)
        snapshot.meta[f"{name}.json"] = MetaFile.from_data(targets.version, data, ["sha256", "sha512"])
    data = write("7.snapshot", Metadata(snapshot), online[:1])
    timestamp = Timestamp(version=30, expires=MONTH)
    timestamp.snapshot_meta = MetaFile.from_data(7, data, ["sha256"])
    write("timestamp", Metadata(timestamp), online[1:])


if __name__ == "__main__":
    main()
