//! A stolen controller, a stolen broker, a captured gateway: what they can hand to the updater, which takes only what
//! the release keys signed, for this device, and nothing older.

use fleet_tests::{
    release::{Recipe, build},
    signing::{FleetKeys, new_key},
};
use protocol::{
    blob::Blob,
    cbor,
    command::{Halt, Signable as _},
    digest::Digest,
    id::DeviceId,
    time::UnixMs,
    tuf::permit::{Holder, Permit},
};
use slots::disk::{self, RealDisk};

use crate::device::{NOW, Rig};

const YEARS_10_MS: u64 = 10 * 365 * 86_400_000;

#[test]
fn a_replayed_assignment() {
    let mut rig = Rig::new();
    let (two, three) = (rig.release(2), rig.release(3));
    let old = rig.request(&two, |_| {});
    rig.commit(&three);
    // The broker keeps the message and gives it again.
    rig.refuses(&two, &old, "was obeyed already");
}

#[test]
fn an_assignment_for_another_device() {
    let mut rig = Rig::new();
    let two = rig.release(2);
    let request =
        rig.request(&two, |desired| desired.device = DeviceId::from(Digest::of(b"another")));
    rig.refuses(&two, &request, "addressed to another device");
}

#[test]
fn an_assignment_for_another_fleet() {
    let mut rig = Rig::new();
    let two = rig.release(2);
    let request = rig.request(&two, |desired| desired.fleet = "another".parse().unwrap());
    rig.refuses(&two, &request, "addressed to another fleet");
}

#[test]
fn an_expired_assignment() {
    let mut rig = Rig::new();
    let two = rig.release(2);
    let request = rig.request(&two, |desired| desired.expires_at = UnixMs(NOW.0 - 1));
    rig.refuses(&two, &request, "expired at");
}

#[test]
fn an_assignment_by_another_controller() {
    let mut rig = Rig::new();
    let two = rig.release(2);
    let mine = std::mem::replace(&mut rig.keys.controller, new_key().unwrap());
    let request = rig.request(&two, |_| {});
    rig.refuses(&two, &request, "not trusted for this");
    rig.keys.controller = mine;
    rig.commit(&two);
}

#[test]
fn another_message_of_the_controller_as_an_assignment() {
    let mut rig = Rig::new();
    let two = rig.release(2);
    let mut request = rig.request(&two, |_| {});
    let halt = Halt {
        fleet: rig.device.fleet.clone(),
        sequence: 9,
        halted: false,
        releases: vec![],
        reason: String::new(),
    };
    request.desired = Blob::from(halt.signed_by(&rig.keys.controller).unwrap());
    rig.refuses(&two, &request, "made for another purpose");
}

#[test]
fn an_altered_assignment() {
    let mut rig = Rig::new();
    let two = rig.release(2);
    let good = rig.request(&two, |_| {});
    let bytes = good.desired.as_slice().to_vec();
    let before = rig.active();
    // Any one byte of it.
    for at in (0..bytes.len()).step_by(7) {
        let mut bent = bytes.clone();
        bent[at] ^= 1;
        let request = protocol::handover::Request { desired: Blob::from(bent), ..good.clone() };
        rig.device.stage(&two.objects, &request).unwrap();
        rig.run_at(NOW);
        rig.stayed(before, "");
    }
}

#[test]
fn a_stolen_controller_assigns_a_release_nobody_signed() {
    let mut rig = Rig::new();
    let unsigned = build(&rig.keys, Recipe { signers: 0, ..Rig::recipe(2) }).unwrap();
    let request = rig.request(&unsigned, |_| {});
    rig.refuses(&unsigned, &request, "is signed by 0 of the 2");
    let by_one = build(&rig.keys, Recipe { signers: 1, ..Rig::recipe(2) }).unwrap();
    let request = rig.request(&by_one, |_| {});
    rig.refuses(&by_one, &request, "is signed by 1 of the 2");
}

#[test]
fn a_stolen_controller_signs_a_release_with_keys_of_its_own() {
    let mut rig = Rig::new();
    let foreign = build(&FleetKeys::new().unwrap(), Rig::recipe(2)).unwrap();
    let request = rig.request(&foreign, |_| {});
    rig.refuses(&foreign, &request, "is signed by 0 of the");
    // Its online keys are genuine: it lists foreign targets with them.
    let mut listed = foreign;
    listed.listing = rig.keys.listing(2, &listed.targets).unwrap();
    let request = rig.request(&listed, |_| {});
    rig.refuses(&listed, &request, "targets metadata is signed by 0 of the 2");
}

#[test]
fn a_stolen_controller_assigns_an_older_release() {
    let mut rig = Rig::new();
    let (two, three) = (rig.release(2), rig.release(3));
    rig.commit(&three);
    // With its online keys it lists the old targets as the newest.
    let mut old = two;
    old.listing = rig.keys.listing(9, &old.targets).unwrap();
    let request = rig.request(&old, |_| {});
    let before = rig.active();
    rig.device.stage(&old.objects, &request).unwrap();
    rig.run_at(NOW);
    rig.stayed(before, "");
}

#[test]
fn a_manifest_other_than_the_assigned_one() {
    let mut rig = Rig::new();
    let (two, three) = (rig.release(2), rig.release(3));
    let request = rig.request(&two, |desired| desired.release = three.digest());
    rig.refuses(&two, &request, "is assigned");
}

#[test]
fn a_permit_for_another_device_or_release_or_time() {
    let mut rig = Rig::fresh();
    let three = rig.release(3);
    rig.commit(&three);
    // Signed anew after release 3, so that only the counter is old.
    let mut old = rig.release(2);
    old.targets = rig.keys.targets(4, "env/prod/2026.11.2.json", &old.manifest_bytes, 2).unwrap();
    old.listing = rig.keys.listing(4, &old.targets).unwrap();
    let other = DeviceId::from(Digest::of(b"another"));
    let (fleet, me) = (rig.device.fleet.clone(), rig.device.id);
    let foreign = "another".parse().unwrap();
    let permit = |fleet, device, release, expires| {
        Permit::new(Holder { fleet, device }, release, UnixMs(expires))
    };
    let (digest, later) = (old.digest(), NOW.0 + 1_000_000);
    let cases = [
        (permit(&fleet, other, digest, later), 2, "for another device"),
        (permit(&foreign, me, digest, later), 2, "for another fleet"),
        (permit(&fleet, me, three.digest(), later), 2, "for another release"),
        (permit(&fleet, me, digest, NOW.0 - 1000), 2, "expired"),
        (permit(&fleet, me, digest, later), 1, "signed by 1 of the 2"),
        (permit(&fleet, me, digest, later), 0, "signed by 0 of the 2"),
    ];
    for (permit, signers, reason) in cases {
        let keys = rig.keys.targets.iter().take(signers);
        let bytes = fleet_tests::signing::signed(&permit, keys).unwrap();
        let named = Digest::of(&bytes);
        let mut request = rig.request(&old, |desired| desired.permit = Some(named));
        request.permit = Some(Blob::from(bytes));
        let before = rig.active();
        rig.device.stage(&old.objects, &request).unwrap();
        rig.run_at(NOW);
        rig.stayed(before, "permit to go back");
        let told = rig.device.record().last().unwrap().detail.clone();
        assert!(told.contains(reason) || told.len() >= 150, "`{reason}` is not in `{told}`");
    }
    // Without one, and with one that the assignment does not name.
    let request = rig.request(&old, |_| {});
    rig.refuses(&old, &request, "no permit to go back");
    let good = permit(&fleet, me, digest, later);
    let bytes = fleet_tests::signing::signed(&good, rig.keys.targets.iter().take(2)).unwrap();
    let mut request = rig.request(&old, |_| {});
    request.permit = Some(Blob::from(bytes.clone()));
    rig.refuses(&old, &request, "not the one that the assignment names");
    // The right one, named by the assignment, lets exactly this device go back.
    let named = Digest::of(&bytes);
    let mut request = rig.request(&old, |desired| desired.permit = Some(named));
    request.permit = Some(Blob::from(bytes));
    rig.device.stage(&old.objects, &request).unwrap();
    rig.finish(&old);
}

#[test]
fn a_request_with_more_in_it_or_less() {
    let mut rig = Rig::new();
    let two = rig.release(2);
    let good = cbor::encode(&rig.request(&two, |_| {})).unwrap();
    let before = rig.active();
    let mut cuts: Vec<Vec<u8>> =
        (0..good.len()).step_by(97).map(|end| good[..end].to_vec()).collect();
    cuts.push([good.clone(), vec![0]].concat());
    cuts.push(vec![0xff; 64]);
    for bytes in cuts {
        disk::replace(&RealDisk, &rig.device.dir.request(), &bytes).unwrap();
        rig.run_at(NOW);
        assert_eq!(rig.active(), before);
        assert_eq!(rig.device.record().state.phase(), "steady");
        assert!(!rig.device.dir.request().exists(), "it would only be refused again");
    }
}

#[test]
fn documents_swapped_between_roles_of_a_request() {
    let mut rig = Rig::new();
    let two = rig.release(2);
    let good = rig.request(&two, |_| {});
    let (timestamp, snapshot) = (good.timestamp.clone(), good.snapshot.clone());
    let request = protocol::handover::Request {
        timestamp: snapshot.clone(),
        snapshot: timestamp.clone(),
        ..good.clone()
    };
    rig.refuses(&two, &request, "the release is refused");
    let mut request = good.clone();
    request.targets[0].document = snapshot;
    rig.refuses(&two, &request, "the release is refused");
    let mut request = good;
    request.roots = vec![timestamp];
    rig.refuses(&two, &request, "the release is refused");
}

#[test]
fn a_clock_ten_years_ahead_stops_updates_and_nothing_else() {
    let mut rig = Rig::new();
    let two = rig.release(2);
    let request = rig.request(&two, |desired| desired.expires_at = UnixMs(NOW.0 + 1000));
    rig.refuses_at(&two, &request, "expired", UnixMs(NOW.0 + YEARS_10_MS));
    // The committed release is still what starts, and a right clock updates again.
    let active = rig.device.record().state.active().cloned().unwrap();
    slots::verify::installed(&RealDisk, &rig.device.dir, active.slot, Some(&active.release))
        .unwrap();
    rig.commit(&two);
}

#[test]
fn a_clock_ten_years_behind_does_not_revive_what_expired() {
    let mut rig = Rig::new();
    let two = rig.release(2);
    // What the device saw signed at NOW is its floor of time.
    let request = rig.request(&two, |desired| {
        desired.issued_at = UnixMs(NOW.0 - 2000);
        desired.expires_at = UnixMs(NOW.0 - 1000);
    });
    rig.refuses_at(&two, &request, "expired", UnixMs(NOW.0 - YEARS_10_MS));
}

#[test]
fn a_controllers_clock_ten_years_ahead_does_not_end_the_metadata() {
    let mut rig = Rig::new();
    let (two, three) = (rig.release(2), rig.release(3));
    // A stolen controller wants the device to believe that everything has expired.
    let request = rig.request(&two, |desired| {
        desired.issued_at = UnixMs(NOW.0 + 8 * YEARS_10_MS);
    });
    rig.device.stage(&two.objects, &request).unwrap();
    rig.finish(&two);
    assert!(rig.device.record().time(NOW).0 <= NOW.0 + 86_400_000);
    rig.commit(&three);
}
