//! What is rewritten gives what tract gives without us; what is nearly the same stays tract's.

use std::{collections::BTreeMap, slice::from_ref, sync::Arc};

use tract_onnx::{
    pb::ModelProto,
    prelude::{
        Datum as _, Framework as _, InferenceFact, InferenceModelExt as _, IntoRunnable as _,
        TValue, TVec, Tensor, ToDim as _, tvec,
    },
};

use crate::{
    graph::{
        feeds::{Feeds, SEGMENTS},
        file::GraphError,
        plan::{Prepared, encoder_of},
        sample::{Form, MaskForm, ROWS, WIDTH, Writer, int},
        translate::framework,
    },
    kernels::threads::Threads,
};

fn ours(model: ModelProto, output: &str) -> Result<Prepared, GraphError> {
    let feeds = Feeds { ids: "input_ids".into(), mask: Some("attention_mask".into()) };
    encoder_of(model, &feeds, output, Arc::new(Threads::one()))
}

fn row(numbers: impl Iterator<Item = i64>) -> TValue {
    let numbers: Vec<i64> = numbers.collect();
    Tensor::from_shape(&[1, numbers.len()], &numbers).unwrap().into()
}

fn first(outputs: TVec<TValue>) -> (Vec<usize>, Vec<f32>) {
    let numbers = outputs[0].try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec();
    (outputs[0].shape().to_vec(), numbers)
}

fn run(prepared: &Prepared, sequences: &[Vec<i64>]) -> (Vec<usize>, Vec<f32>) {
    let inputs = prepared.inputs.iter().map(|name| match name.as_str() {
        "input_ids" => row(sequences.iter().flatten().copied()),
        "attention_mask" => row(sequences.iter().flatten().map(|_| 1)),
        "token_type_ids" => row(sequences.iter().flatten().map(|_| 0)),
        SEGMENTS => {
            let mut ends = vec![0_i64];
            for sequence in sequences {
                ends.push(ends[ends.len() - 1] + sequence.len() as i64);
            }
            Tensor::from_shape(&[ends.len()], &ends).unwrap().into()
        }
        other => panic!("input {other}"),
    });
    first(prepared.plan.run(inputs.collect()).unwrap())
}

/// What tract gives without us.
pub(super) fn stock(model: &ModelProto, ids: &[i64]) -> Vec<f32> {
    let mut found = framework().model_for_proto_model(model).unwrap();
    for at in 0..3 {
        let shape = [1.to_dim(), ids.len().to_dim()];
        found.set_input_fact(at, InferenceFact::dt_shape(i64::datum_type(), shape)).unwrap();
    }
    let plan = found.into_typed().unwrap().into_decluttered().unwrap().into_runnable().unwrap();
    let inputs =
        tvec!(row(ids.iter().copied()), row(ids.iter().map(|_| 1)), row(ids.iter().map(|_| 0)));
    first(plan.run(inputs).unwrap()).1
}

/// Length of the difference over the length of what is expected.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let length =
        |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|n| n * n).sum::<f32>().sqrt();
    let gap = length(&mut found.iter().zip(expected).map(|(one, other)| one - other));
    gap / length(&mut expected.iter().copied())
}

fn kinds(prepared: &Prepared) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for node in prepared.plan.model().nodes() {
        *kinds.entry(node.op.name().into_owned()).or_default() += 1;
    }
    kinds
}

fn ids(seed: u64, len: usize) -> Vec<i64> {
    let mut random = Writer::new(seed);
    (0..len).map(|_| ((random.random() + 1.0) / 2.0 * (ROWS - 1) as f32) as i64).collect()
}

fn encoder(form: Form, mask: MaskForm) -> ModelProto {
    let mut writer = Writer::new(7);
    let output = writer.encoder(form, mask, 0.5);
    writer.finish(&output)
}

#[test]
fn every_form_of_an_encoder_becomes_our_operators_and_gives_what_tract_gives() {
    let cases = [
        (Form::Float, "Linear.f32", 1e-5),
        // Activations are quantized in blocks where they were not: the error of 8 bits.
        (Form::Int8AtRest, "Linear.q8", 2e-2),
        (Form::Dynamic, "Linear.int8", 2e-2),
        (Form::Rounded, "Linear.int8", 6e-2),
    ];
    for (form, linear, most) in cases {
        let model = encoder(form, MaskForm::Padding);
        let prepared = ours(model.clone(), "states").unwrap();
        let kinds = kinds(&prepared);
        let count = |kind: &str| kinds.get(kind).copied().unwrap_or(0);
        assert_eq!((count(linear), count("Attention"), count("LayerNorm")), (8, 2, 5), "{kinds:?}");
        assert!(prepared.ragged, "{form:?}");
        for len in [1, 2, 17, 90] {
            let ids = ids(len as u64, len);
            let apart = distance(&run(&prepared, from_ref(&ids)).1, &stock(&model, &ids));
            println!("{form:?}, {len} tokens: {apart:.1e}");
            assert!(apart <= most, "{form:?}, {len} tokens: {apart}");
        }
    }
}

#[test]
fn blocks_of_eight_and_four_bits_are_as_near_as_they_can_be() {
    let expected = encoder(Form::Float, MaskForm::Padding);
    let cases = [
        (8, 32, 3e-2, "Linear.q8"),
        (8, 64, 3e-2, "Linear.q8"),
        (4, 32, 4e-1, "Linear.q4"),
        (4, 64, 5e-1, "Linear.q4"),
    ];
    for (bits, block, most, linear) in cases {
        let form = Form::Blocks(bits, block);
        let prepared = ours(encoder(form, MaskForm::Padding), "states").unwrap();
        assert!(prepared.ragged);
        let kinds = kinds(&prepared);
        assert_eq!((kinds.get(linear), kinds.get("Table")), (Some(&8), Some(&1)), "{kinds:?}");
        assert_eq!((kinds.get("Sum"), kinds.get("Add")), (Some(&2), None), "{kinds:?}");
        let ids = ids(3, 40);
        let apart = distance(&run(&prepared, from_ref(&ids)).1, &stock(&expected, &ids));
        println!("{bits} bits, blocks of {block}: {apart:.1e}");
        assert!(apart <= most, "{bits} bits, blocks of {block}: {apart}");
    }
}

#[test]
fn sequences_in_one_pass_give_the_bits_they_give_alone() {
    for form in [
        Form::Float,
        Form::Int8AtRest,
        Form::Dynamic,
        Form::Rounded,
        Form::Blocks(8, 32),
        Form::Blocks(8, 64),
        Form::Blocks(4, 32),
    ] {
        let prepared = ours(encoder(form, MaskForm::Padding), "states").unwrap();
        for seed in 0..6_u64 {
            let mut random = Writer::new(seed);
            let mut len = || ((random.random() + 1.0) * 20.0) as usize + 1;
            let sequences: Vec<Vec<i64>> = (0..5).map(|at| ids(seed * 10 + at, len())).collect();
            let alone: Vec<f32> =
                sequences.iter().flat_map(|ids| run(&prepared, from_ref(ids)).1).collect();
            let (shape, together) = run(&prepared, &sequences);
            assert_eq!(shape, [1, alone.len() / WIDTH, WIDTH]);
            assert!(together == alone, "{form:?}, seed {seed}");
        }
    }
}

#[test]
fn a_mask_that_hides_more_than_padding_is_kept() {
    for mask in [MaskForm::Causal, MaskForm::Window] {
        let model = encoder(Form::Float, mask);
        let prepared = ours(model.clone(), "states").unwrap();
        assert!(!prepared.ragged, "{mask:?}");
        assert!(!kinds(&prepared).contains_key("Attention"));
        let ids = ids(5, 150);
        assert!(distance(&run(&prepared, from_ref(&ids)).1, &stock(&model, &ids)) <= 1e-5);
    }
}

#[test]
fn a_product_that_is_nearly_a_gelu_is_not_one() {
    let mut writer = Writer::new(7);
    let output = writer.encoder(Form::Float, MaskForm::Padding, 0.49);
    let model = writer.finish(&output);
    let prepared = ours(model.clone(), "states").unwrap();
    assert!(kinds(&prepared).keys().any(|kind| kind.contains("Erf")), "{:?}", kinds(&prepared));
    let ids = ids(5, 30);
    assert!(distance(&run(&prepared, from_ref(&ids)).1, &stock(&model, &ids)) <= 1e-5);
}

#[test]
fn what_mixes_tokens_keeps_sequences_apart() {
    for (op, attributes) in
        [("ReduceMean", vec![("axes", vec![1])]), ("Transpose", vec![("perm", vec![0, 2, 1])])]
    {
        let mut writer = Writer::new(7);
        let states = writer.encoder(Form::Float, MaskForm::Padding, 0.5);
        let attributes =
            attributes.iter().map(|(name, numbers)| crate::graph::sample::ints(name, numbers));
        let output = writer.with(op, &[&states], "mixed", attributes.collect());
        let prepared = ours(writer.finish(&output), "mixed").unwrap();
        assert!(!prepared.ragged, "{op}");
        assert_eq!(kinds(&prepared).get("Attention"), Some(&2));
    }
}

#[test]
fn a_classifier_reads_the_first_token_of_each_sequence() {
    let mut writer = Writer::new(9);
    let states = writer.encoder(Form::Blocks(8, 32), MaskForm::Padding, 0.5);
    let zero = writer.ints("first.at", &[], &[0]);
    let first = writer.with("Gather", &[&states, &zero], "first", vec![int("axis", 1)]);
    let dense = writer.linear(Form::Blocks(8, 32), &first, WIDTH, WIDTH, "dense");
    let pooled = writer.node("Tanh", &[&dense], "pooled");
    let logits = writer.linear(Form::Float, &pooled, WIDTH, 3, "logits");
    let prepared = ours(writer.finish(&logits), "logits").unwrap();
    assert!(prepared.ragged);
    let sequences = [ids(1, 9), ids(2, 1), ids(3, 30)];
    let alone: Vec<f32> =
        sequences.iter().flat_map(|ids| run(&prepared, from_ref(ids)).1).collect();
    let (shape, together) = run(&prepared, &sequences);
    assert_eq!((shape.as_slice(), together), ([3, 3].as_slice(), alone));
}

#[test]
fn constants_that_do_not_fit_and_unknown_operators_are_named() {
    let refused = |change: &dyn Fn(&mut ModelProto)| {
        let mut model = encoder(Form::Blocks(8, 32), MaskForm::Padding);
        change(&mut model);
        ours(model, "states").map(|_| ()).map_err(|reason| reason.to_string()).unwrap_err()
    };
    let attribute = |name: &'static str, value: i64| {
        move |model: &mut ModelProto| {
            let nodes = &mut model.graph.as_mut().unwrap().node;
            let node = nodes.iter_mut().find(|node| node.op_type == "MatMulNBits").unwrap();
            node.attribute.iter_mut().find(|found| found.name == name).unwrap().i = value;
        }
    };
    for (name, value) in [
        ("K", 65),
        ("K", -1),
        ("K", i64::MAX),
        ("N", 0),
        ("N", 1 << 40),
        ("bits", 3),
        ("bits", 4),
        ("block_size", 0),
        ("block_size", 31),
        ("block_size", i64::MIN),
    ] {
        let said = refused(&attribute(name, value));
        assert!(
            said.starts_with("MatMulNBits node `layer0.q.product` of model.onnx has constants"),
            "{name}: {said}"
        );
    }
    let short = |model: &mut ModelProto| {
        for tensor in &mut model.graph.as_mut().unwrap().initializer {
            if tensor.name == "words.codes" {
                tensor.raw_data.truncate(5);
            }
        }
    };
    let said = refused(&short);
    assert!(
        said.starts_with("GatherBlockQuantized node `words` of model.onnx has constants"),
        "{said}"
    );
    let said = refused(&|model| {
        model.graph.as_mut().unwrap().node.last_mut().unwrap().op_type = "Frobnicate".into()
    });
    assert_eq!(
        said,
        "node `states` of model.onnx uses the operator `Frobnicate`, which this engine does not know: export the model with standard operators, or without this one"
    );
}

/// Position embeddings alone, from what `write` makes of the ids.
fn placed(write: &dyn Fn(&mut Writer) -> String) -> ModelProto {
    let mut writer = Writer::new(11);
    let table: Vec<f32> = (0..2000 * WIDTH).map(|_| writer.random()).collect();
    let table = writer.floats("table", &[2000, WIDTH], &table);
    let positions = write(&mut writer);
    let output = writer.node("Gather", &[&table, &positions], "states");
    writer.finish(&output)
}

/// As RoBERTa counts: padding, here 1, has a position of its own and is not counted.
fn counted(writer: &mut Writer) -> String {
    let pad = writer.ints("pad", &[], &[1]);
    let padding = writer.node("Equal", &["input_ids", &pad], "padding");
    let text = writer.node("Not", &[&padding], "text");
    let ones = writer.with("Cast", &[&text], "ones", vec![int("to", 6)]);
    let axis = writer.ints("axis", &[], &[1]);
    let sums = writer.node("CumSum", &[&ones, &axis], "sums");
    let kept = writer.node("Mul", &[&sums, &ones], "kept32");
    let kept = writer.with("Cast", &[&kept], "kept", vec![int("to", 7)]);
    writer.node("Add", &[&kept, &pad], "positions")
}

#[test]
fn positions_that_skip_padding_are_found_by_what_they_are() {
    let model = placed(&counted);
    let prepared = ours(model.clone(), "states").unwrap();
    assert!(
        prepared.ragged && kinds(&prepared).contains_key("Positions"),
        "{:?}",
        kinds(&prepared)
    );
    let sequences = [vec![5, 6, 7], vec![9], vec![0, 1, 7, 1, 1, 8], vec![1, 4]];
    let alone: Vec<f32> = sequences.iter().flat_map(|ids| stock(&model, ids)).collect();
    assert!(run(&prepared, &sequences).1 == alone);
}

#[test]
fn positions_summed_in_64_bits_are_found_although_tract_cannot_sum_them() {
    let wide = |writer: &mut Writer| {
        let positions = counted(writer);
        for node in &mut writer.graph.node {
            if let Some(to) = node.attribute.iter_mut().find(|to| to.name == "to") {
                to.i = 7;
            }
        }
        positions
    };
    let prepared = ours(placed(&wide), "states").unwrap();
    assert!(prepared.ragged && kinds(&prepared).contains_key("Positions"));
    let ids = [5, 1, 7, 8];
    assert!(run(&prepared, &[ids.to_vec()]).1 == stock(&placed(&counted), &ids));
}

#[test]
fn positions_counted_otherwise_are_left_to_tract() {
    let backwards = |writer: &mut Writer| {
        let positions = counted(writer);
        let most = writer.ints("most", &[], &[1000]);
        writer.node("Sub", &[&most, &positions], "backwards")
    };
    let every_other = |writer: &mut Writer| {
        let positions = counted(writer);
        let two = writer.ints("two", &[], &[2]);
        writer.node("Mul", &[&positions, &two], "every_other")
    };
    for write in [&backwards as &dyn Fn(&mut Writer) -> String, &every_other] {
        let model = placed(write);
        let prepared = ours(model.clone(), "states").unwrap();
        assert!(!prepared.ragged && !kinds(&prepared).contains_key("Positions"));
        let ids = [5, 1, 7, 8];
        assert!(run(&prepared, &[ids.to_vec()]).1 == stock(&model, &ids));
    }
}
