//! Going back: one device, one release, until a date, signed by those who sign for the release.

use protocol::{
    digest::Digest,
    id::{DeviceId, FleetId},
    time::UnixMs,
    tuf::permit::{Holder, Permit, may_install},
};

use crate::repository::{NOW, Repository, keys, prod, refused, signed};

fn device(name: &[u8]) -> DeviceId {
    DeviceId::from(Digest::of(name))
}

#[test]
fn a_permit_opens_one_release_to_one_device_until_it_expires() {
    let repository = Repository::new();
    let (_, release) = repository.verify().unwrap();
    let (fleet, other_fleet): (FleetId, FleetId) = ("demo".parse().unwrap(), "x".parse().unwrap());
    let holder = Holder { fleet: &fleet, device: device(b"one") };
    let check = |permit: &Permit, now: UnixMs| {
        let bytes = signed(permit, &repository.keys["targets"][1..]);
        may_install(&release, 5, Some(&bytes), holder, now)
    };
    let digest = release.get().digest;
    let permit = Permit::new(holder, digest, NOW.plus(60_000));
    check(&permit, NOW).unwrap();
    refused(check(&permit, NOW.plus(60_000)), "expired at");
    let other = Holder { device: device(b"two"), ..holder };
    refused(check(&Permit::new(other, digest, NOW.plus(1000)), NOW), "another device");
    let other = Holder { fleet: &other_fleet, ..holder };
    refused(check(&Permit::new(other, digest, NOW.plus(1000)), NOW), "another fleet");
    refused(check(&Permit::new(holder, Digest::of(b"x"), NOW.plus(1000)), NOW), "another release");
    let kind = Permit { kind: "targets".into(), ..permit.clone() };
    refused(check(&kind, NOW), "is a `targets`");

    refused(may_install(&release, 5, None, holder, NOW), "no permit to go back");
    refused(may_install(&release, 5, None, holder, NOW), "refused as a rollback");
    may_install(&release, 0, None, holder, NOW).unwrap();
    for signers in [&keys(2)[..], &repository.keys["targets"][..1], &repository.keys["root"][..2]] {
        let bytes = signed(&permit, signers);
        refused(may_install(&release, 5, Some(&bytes), holder, NOW), "of the 2 distinct keys");
    }
    refused(may_install(&release, 5, Some(&vec![b' '; 20_000]), holder, NOW), "20000 bytes");
}

#[test]
fn who_lists_the_release_signs_the_permit() {
    let mut repository = Repository::new();
    repository.role("targets").targets.clear();
    repository.delegate("targets", "env-prod", &["env/prod/*"], true);
    repository.list("env-prod", &prod());
    let (_, release) = repository.verify().unwrap();
    let fleet: FleetId = "demo".parse().unwrap();
    let holder = Holder { fleet: &fleet, device: device(b"one") };
    let permit = Permit::new(holder, release.get().digest, NOW.plus(1000));
    let by = |role: &str| signed(&permit, &repository.keys[role]);
    may_install(&release, 5, Some(&by("env-prod")), holder, NOW).unwrap();
    refused(may_install(&release, 5, Some(&by("targets")), holder, NOW), "signed by 0 of the 1");
}
