//! From an ONNX file to a plan that tract runs with our operators in it.

use std::{collections::HashMap, sync::Arc};

use tract_onnx::{
    Onnx,
    pb::ModelProto,
    prelude::{
        InferenceModel, InferenceModelExt as _, IntoRunnable as _, TractResult, TypedSimplePlan,
    },
};

use crate::{
    graph::{
        attentions, epilogues, fakes,
        feeds::{Feeds, SEGMENTS},
        file::{self, GraphError},
        firsts, forms,
        fused::Fused,
        gelus, linears, lookups,
        net::Net,
        norms, pack, positions,
        ragged::{self, Ragged},
        shapes::{self, Sequences, Shapes},
        step::Pool,
        tables,
        translate::{Stand, framework, translate},
    },
    kernels::threads::Threads,
    weight_form::WeightForm,
};

/// Operators of onnxruntime that have the name of another one.
const OTHERWISE: [&str; 2] = ["Attention", "RotaryEmbedding"];

/// What the plan of an encoder takes and gives.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The plan.
    pub(crate) plan: Arc<TypedSimplePlan>,
    /// Names of its inputs, in order; [`SEGMENTS`] may be among them.
    pub(crate) inputs: Vec<String>,
    /// Whether several sequences may stand in one pass.
    pub(crate) ragged: bool,
    /// What form most weights have.
    pub(crate) form: Option<WeightForm>,
    /// Buffers of the plan's steps.
    pub(crate) pool: Arc<Pool>,
}

/// Any graph on any inputs: rewritten where that does not depend on what the inputs are.
///
/// # Errors
/// Says which operator or constant is refused.
pub fn general(
    onnx: &[u8],
    nodes_max: usize,
    threads: Arc<Threads>,
) -> Result<InferenceModel, GraphError> {
    let framework = framework();
    let mut net = Net::new(file::checked(onnx, nodes_max)?);
    local(&framework, &mut net)?;
    let inputs = net.inputs().to_vec();
    finish(&framework, net, &inputs, &threads, &Arc::new(Pool::default()))
}

/// The encoder in `onnx` with this one output, for any length of sequence.
pub(crate) fn encoder(
    onnx: &[u8],
    nodes_max: usize,
    feeds: &Feeds,
    output: &str,
    threads: Arc<Threads>,
) -> Result<Prepared, GraphError> {
    encoder_of(file::checked(onnx, nodes_max)?, feeds, output, threads)
}

/// The same for a file that is read and held to limits.
pub(super) fn encoder_of(
    model: ModelProto,
    feeds: &Feeds,
    output: &str,
    threads: Arc<Threads>,
) -> Result<Prepared, GraphError> {
    let framework = framework();
    let mut net = Net::new(model);
    net.select_outputs(&[output.to_owned()]);
    if net.producer(output).is_none() {
        return Err(GraphError::NoOutput { name: output.to_owned() });
    }
    net.prune();
    local(&framework, &mut net)?;
    let shapes = Shapes::find(&framework, &net).map_err(GraphError::Translate)?;
    positions::fuse(&mut net, &shapes, feeds);
    attentions::fuse(&mut net, &shapes, feeds);
    firsts::fuse(&mut net, &shapes);
    epilogues::narrow_attentions(&mut net);
    epilogues::join_projections(&mut net);
    epilogues::absorb(&mut net, &shapes);
    epilogues::take_sums(&mut net, &shapes);
    let ragged = ragged::of(&net, &shapes) == Ragged::Yes;
    let form = forms::of(&net);
    let mut inputs: Vec<String> =
        net.inputs().iter().filter(|name| net.uses(name) > 0).cloned().collect();
    if net.uses(SEGMENTS) > 0 {
        inputs.push(SEGMENTS.to_owned());
    }
    let pool = Arc::new(Pool::default());
    let mut model = finish(&framework, net, &inputs, &threads, &pool)?;
    let prepared = |model: &mut InferenceModel| -> TractResult<Arc<TypedSimplePlan>> {
        shapes::declare(model, &inputs, Sequences::Any)?;
        std::mem::take(model).into_typed()?.into_decluttered()?.into_optimized()?.into_runnable()
    };
    let plan = prepared(&mut model).map_err(GraphError::Translate)?;
    Ok(Prepared { plan, inputs, ragged, form, pool })
}

/// The rewrites that look at constants only.
fn local(framework: &Onnx, net: &mut Net) -> Result<(), GraphError> {
    fakes::fuse(net);
    tables::fuse(net)?;
    lookups::first(net);
    norms::fuse(net);
    gelus::fuse(net);
    linears::fuse(net)?;
    known(framework, net)
}

/// Refuses an operator that nobody knows, before tract says so in words for its developers.
fn known(framework: &Onnx, net: &Net) -> Result<(), GraphError> {
    for at in net.places() {
        let Some(node) = net.node(at).filter(|_| net.fused_at(at).is_none()) else { continue };
        // tract goes by the name alone, and these mean something else in the standard.
        let other = node.domain == "com.microsoft" && OTHERWISE.contains(&node.op_type.as_str());
        if other || !framework.op_register.0.contains_key(&node.op_type) {
            let domain = if node.domain.is_empty() { "" } else { "::" };
            let op = format!("{}{domain}{}", node.domain, node.op_type);
            let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
            return Err(GraphError::Operator { op, node: name.cloned().unwrap_or_default() });
        }
    }
    Ok(())
}

/// tract's model, with everything packed for this machine.
fn finish(
    framework: &Onnx,
    net: Net,
    inputs: &[String],
    threads: &Arc<Threads>,
    pool: &Arc<Pool>,
) -> Result<InferenceModel, GraphError> {
    let (model, fused): (ModelProto, HashMap<String, Fused>) = net.finish(inputs);
    let mut stands = HashMap::with_capacity(fused.len());
    for (name, fused) in fused {
        let step = pack::step(&name, fused, threads, pool)?;
        stands.insert(name, Stand::Step(step));
    }
    translate(framework, &model, &stands).map_err(GraphError::Translate)
}
