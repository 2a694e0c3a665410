//! Every shader variant is emitted as SPIR-V: some faults validate and show only there.

use std::collections::BTreeSet;
use std::path::Path;

use gpu_kernels::linear_q8::Tile;
use naga::back::spv;
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// Name of the `.wgsl`, and the text of each of its variants.
fn variants() -> Vec<(&'static str, Vec<String>)> {
    vec![("linear_q8", Tile::ALL.map(Tile::source).to_vec())]
}

#[test]
fn every_variant_validates_and_emits_spirv() {
    for (name, sources) in variants() {
        for source in sources {
            let header = source.lines().next().unwrap_or_default().to_owned();
            let module = naga::front::wgsl::parse_str(&source)
                .unwrap_or_else(|why| panic!("{name} ({header}): {}", why.emit_to_string(&source)));
            let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
                .validate(&module)
                .unwrap_or_else(|why| panic!("{name} ({header}): {}", why.emit_to_string(&source)));
            let words = spv::write_vec(&module, &info, &spv::Options::default(), None).unwrap();
            assert_eq!(words.first(), Some(&0x0723_0203), "{name} ({header}): no SPIR-V magic");
            println!("{name} ({header}): {} words of SPIR-V", words.len());
        }
    }
}

#[test]
fn no_shader_is_left_out() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "wgsl"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let listed: BTreeSet<String> = variants().iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(on_disk, listed, "list each .wgsl with all its variants in this file");
}
