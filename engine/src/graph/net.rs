//! The graph of a file while it is rewritten: who computes a value, who uses it, and what has been fused.
//!
//! A rewrite replaces some nodes by one whose [`Fused`] says what it computes; tract sees a node of an operator that
//! it does not know and [`crate::graph::translate`] puts ours in its place. Weights that a fused node took leave the
//! file's initializers, so that nothing holds them twice.

use std::collections::HashMap;

use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use crate::graph::fused::Fused;

/// Operator name of a node that is in the table of fused ones.
pub(super) const FUSED: &str = "SocleFused";
/// Stands for the user of a value that the graph returns.
const RETURNED: usize = usize::MAX;

/// A graph under rewriting.
#[derive(Debug)]
pub(super) struct Net {
    nodes: Vec<Option<NodeProto>>,
    producers: HashMap<String, usize>,
    users: HashMap<String, Vec<usize>>,
    consts: HashMap<String, TensorProto>,
    fused: HashMap<String, Fused>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    shell: ModelProto,
    closed: bool,
}

impl Net {
    /// Takes the graph out of `model`. Constants that nodes carry become initializers.
    pub(super) fn new(mut model: ModelProto) -> Self {
        let mut graph = model.graph.take().unwrap_or_default();
        let closed = graph
            .node
            .iter()
            .all(|node| node.attribute.iter().all(|a| a.g.is_none() && a.graphs.is_empty()));
        let mut consts: HashMap<String, TensorProto> =
            graph.initializer.drain(..).map(|tensor| (tensor.name.clone(), tensor)).collect();
        let mut nodes = Vec::with_capacity(graph.node.len());
        for mut node in graph.node.drain(..) {
            match constant(&mut node) {
                Some(tensor) => drop(consts.insert(tensor.name.clone(), tensor)),
                None => nodes.push(Some(node)),
            }
        }
        // An initializer that is also listed as an input is a default that nobody overrides here.
        let inputs = graph.input.iter().map(|input| input.name.clone());
        let inputs = inputs.filter(|name| !consts.contains_key(name)).collect();
        let outputs = graph.output.iter().map(|output| output.name.clone()).collect();
        graph.input.retain(|input| !consts.contains_key(&input.name));
        graph.value_info.clear();
        model.graph = Some(graph);
        let mut net = Self {
            nodes,
            producers: HashMap::new(),
            users: HashMap::new(),
            consts,
            fused: HashMap::new(),
            inputs,
            outputs,
            shell: model,
            closed,
        };
        net.index();
        net.forget_identities();
        net.merge_twins();
        net
    }

    fn index(&mut self) {
        self.producers.clear();
        self.users.clear();
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            enter(&mut self.producers, &mut self.users, at, node);
        }
        for output in &self.outputs {
            self.users.entry(output.clone()).or_default().push(RETURNED);
        }
    }

    /// Lets the users of an `Identity` use what it copies.
    fn forget_identities(&mut self) {
        if !self.closed {
            return;
        }
        let mut alias: HashMap<String, String> = HashMap::new();
        for slot in &mut self.nodes {
            let Some(node) = slot.as_mut() else { continue };
            for input in &mut node.input {
                if let Some(source) = alias.get(input) {
                    input.clone_from(source);
                }
            }
            if let (true, [from], [to]) =
                (is_default(node, "Identity"), node.input.as_slice(), node.output.as_slice())
                && !self.outputs.contains(to)
            {
                alias.insert(to.clone(), from.clone());
                *slot = None;
            }
        }
        // Nodes stand in order in a valid file; where they do not, a late use still names the alias.
        for node in self.nodes.iter_mut().flatten() {
            for input in &mut node.input {
                if let Some(source) = alias.get(input) {
                    input.clone_from(source);
                }
            }
        }
        self.index();
    }

    /// Lets nodes that compute the same from the same inputs be one: exporters write a mask once per layer.
    fn merge_twins(&mut self) {
        if !self.closed {
            return;
        }
        let mut first: HashMap<Vec<u8>, String> = HashMap::new();
        let mut alias: HashMap<String, String> = HashMap::new();
        for slot in &mut self.nodes {
            let Some(node) = slot.as_mut() else { continue };
            for input in &mut node.input {
                if let Some(source) = alias.get(input) {
                    input.clone_from(source);
                }
            }
            let [output] = node.output.as_slice() else { continue };
            if self.outputs.contains(output) || node.op_type.starts_with("Random") {
                continue;
            }
            match first.get(&identity(node)) {
                Some(source) => {
                    alias.insert(output.clone(), source.clone());
                    *slot = None;
                }
                None => drop(first.insert(identity(node), output.clone())),
            }
        }
        for node in self.nodes.iter_mut().flatten() {
            for input in &mut node.input {
                if let Some(source) = alias.get(input) {
                    input.clone_from(source);
                }
            }
        }
        self.index();
    }

    /// The places of all nodes that are left.
    pub(super) fn places(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|at| self.nodes.get(*at).is_some_and(Option::is_some))
            .collect()
    }

    /// The node at a place, if it is still there.
    pub(super) fn node(&self, at: usize) -> Option<&NodeProto> {
        self.nodes.get(at)?.as_ref()
    }

    /// Where `value` is computed.
    pub(super) fn producer(&self, value: &str) -> Option<usize> {
        self.producers.get(value).copied()
    }

    /// The standard node of kind `op_type` whose only output is `value`.
    pub(super) fn made_by(&self, value: &str, op_type: &str) -> Option<(usize, &NodeProto)> {
        let at = self.producer(value)?;
        let node = self.node(at).filter(|node| is_default(node, op_type))?;
        (node.output.len() == 1).then_some((at, node))
    }

    /// The same, when nothing else uses `value`.
    pub(super) fn made_for_one(&self, value: &str, op_type: &str) -> Option<(usize, &NodeProto)> {
        if self.uses(value) == 1 { self.made_by(value, op_type) } else { None }
    }

    /// How often `value` is used, as an output of the graph too.
    pub(super) fn uses(&self, value: &str) -> usize {
        self.users.get(value).map_or(0, Vec::len)
    }

    /// The node that alone uses `value`, unless the graph returns it.
    pub(super) fn sole_user(&self, value: &str) -> Option<usize> {
        match self.users.get(value)?.as_slice() {
            [at] if *at != RETURNED => Some(*at),
            _ => None,
        }
    }

    /// The places of the nodes that use `value`, in their subgraphs too; each as often as it does.
    pub(super) fn users(&self, value: &str) -> Vec<usize> {
        let users = self.users.get(value).into_iter().flatten();
        users.copied().filter(|at| *at != RETURNED).collect()
    }

    /// Adds a constant under a name that is free.
    pub(super) fn add_constant(&mut self, tensor: TensorProto) {
        self.consts.insert(tensor.name.clone(), tensor);
    }

    /// A constant.
    pub(super) fn constant(&self, value: &str) -> Option<&TensorProto> {
        self.consts.get(value)
    }

    /// Names of the graph's inputs.
    pub(super) fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// Names of the graph's outputs.
    pub(super) fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// Keeps only the outputs of these names.
    pub(super) fn select_outputs(&mut self, names: &[String]) {
        self.outputs = names.to_vec();
        self.index();
    }

    /// What the fused node at a place computes.
    pub(super) fn fused_at(&self, at: usize) -> Option<&Fused> {
        self.fused.get(&self.node(at)?.name)
    }

    /// What the fused node that computes `value` computes.
    pub(super) fn fused(&self, value: &str) -> Option<(usize, &Fused)> {
        let at = self.producer(value)?;
        Some((at, self.fused_at(at)?))
    }

    /// What the fused nodes compute, by the names of the nodes.
    pub(super) fn fused_nodes(&self) -> impl Iterator<Item = (&String, &Fused)> {
        self.fused.iter()
    }

    /// What the fused node at a place computes, to change it.
    pub(super) fn fused_mut(&mut self, at: usize) -> Option<&mut Fused> {
        let name = &self.nodes.get(at)?.as_ref()?.name;
        self.fused.get_mut(name)
    }

    /// Takes a fused node's content out, to put it back changed by [`Net::put`].
    pub(super) fn take_fused(&mut self, at: usize) -> Option<Fused> {
        let name = self.node(at)?.name.clone();
        self.fused.remove(&name)
    }

    /// Replaces the nodes at `dead` by one that computes `output` from `inputs`.
    pub(super) fn put(
        &mut self,
        dead: &[usize],
        fused: Fused,
        inputs: Vec<String>,
        output: String,
    ) {
        let name = format!("socle:{output}");
        self.fused.insert(name.clone(), fused);
        let node = NodeProto {
            name,
            op_type: FUSED.into(),
            input: inputs,
            output: vec![output],
            ..NodeProto::default()
        };
        self.replace(dead, vec![node]);
    }

    /// Replaces the nodes at `dead` by `nodes`.
    pub(super) fn replace(&mut self, dead: &[usize], nodes: Vec<NodeProto>) {
        for at in dead {
            self.remove(*at);
        }
        for node in nodes {
            enter(&mut self.producers, &mut self.users, self.nodes.len(), &node);
            self.nodes.push(Some(node));
        }
    }

    fn remove(&mut self, at: usize) {
        let Some(node) = self.nodes.get_mut(at).and_then(Option::take) else { return };
        for output in &node.output {
            if self.producers.get(output) == Some(&at) {
                self.producers.remove(output);
            }
        }
        for_each_use(&node, &mut |name| {
            if let Some(users) = self.users.get_mut(name)
                && let Some(index) = users.iter().position(|user| *user == at)
            {
                users.swap_remove(index);
            }
        });
    }

    /// Lets the node at `at` read `to` where it reads `from`.
    pub(super) fn rewire(&mut self, at: usize, from: &str, to: &str) {
        let Some(mut node) = self.node(at).cloned() else { return };
        for input in node.input.iter_mut().filter(|input| *input == from) {
            to.clone_into(input);
        }
        // In its place, so that places taken before stay right.
        self.remove(at);
        enter(&mut self.producers, &mut self.users, at, &node);
        if let Some(slot) = self.nodes.get_mut(at) {
            *slot = Some(node);
        }
    }

    /// Drops nodes, fused contents and constants from which no output follows.
    pub(super) fn prune(&mut self) {
        let mut wanted: Vec<String> = self.outputs.clone();
        let mut kept = vec![false; self.nodes.len()];
        while let Some(value) = wanted.pop() {
            let Some(at) = self.producer(&value) else { continue };
            if let (Some(kept), Some(node)) =
                (kept.get_mut(at), self.nodes.get(at).and_then(Option::as_ref))
                && !*kept
            {
                *kept = true;
                for_each_use(node, &mut |name| wanted.push(name.to_owned()));
            }
        }
        for (at, kept) in kept.into_iter().enumerate() {
            if !kept {
                if let Some(name) = self.node(at).map(|node| node.name.clone()) {
                    self.fused.remove(&name);
                }
                if let Some(slot) = self.nodes.get_mut(at) {
                    *slot = None;
                }
            }
        }
        self.index();
        let users = &self.users;
        self.consts.retain(|name, _| users.get(name).is_some_and(|users| !users.is_empty()));
    }

    /// The places of the nodes from which `targets` follow, in an order in which they can run.
    pub(super) fn ancestors_of_all(
        &self,
        targets: &[String],
        cut: &dyn Fn(&str) -> bool,
    ) -> Option<Vec<usize>> {
        let mut order = Vec::new();
        for target in targets {
            let found = self.ancestors(target, cut)?;
            order.extend(found.into_iter().filter(|at| !order.contains(at)).collect::<Vec<_>>());
        }
        Some(order)
    }

    /// The places of the nodes from which `target` follows, an order in which they can run; values for which `cut`
    /// holds count as given. `None` when the graph has a cycle there.
    pub(super) fn ancestors(&self, target: &str, cut: &dyn Fn(&str) -> bool) -> Option<Vec<usize>> {
        let mut order = Vec::new();
        // 1: begun, 2: done.
        let mut state: HashMap<usize, u8> = HashMap::new();
        let mut stack = vec![(target.to_owned(), false)];
        while let Some((value, left)) = stack.pop() {
            if cut(&value) {
                continue;
            }
            let Some(at) = self.producer(&value) else { continue };
            if left {
                if state.insert(at, 2) != Some(2) {
                    order.push(at);
                }
                continue;
            }
            match state.get(&at) {
                Some(2) => continue,
                Some(_) => return None,
                None => drop(state.insert(at, 1)),
            }
            stack.push((value, true));
            for_each_use(self.node(at)?, &mut |name| {
                let done = self.producer(name).and_then(|at| state.get(&at)) == Some(&2);
                if !done {
                    stack.push((name.to_owned(), false));
                }
            });
        }
        Some(order)
    }

    /// A model of these nodes and the constants that they use; `inputs` are told to tract later.
    pub(super) fn model(
        &self,
        places: &[usize],
        inputs: &[String],
        outputs: &[String],
    ) -> ModelProto {
        let node: Vec<NodeProto> = places.iter().filter_map(|at| self.node(*at).cloned()).collect();
        let mut graph = GraphProto { node, ..GraphProto::default() };
        let mut taken: HashMap<String, ()> = HashMap::new();
        for node in &graph.node {
            for_each_use(node, &mut |name| {
                if let Some(tensor) = self.consts.get(name)
                    && taken.insert(name.to_owned(), ()).is_none()
                {
                    graph.initializer.push(tensor.clone());
                }
            });
        }
        for name in outputs {
            if let Some(tensor) = self.consts.get(name)
                && taken.insert(name.to_owned(), ()).is_none()
            {
                graph.initializer.push(tensor.clone());
            }
        }
        let declared = self.shell.graph.iter().flat_map(|graph| &graph.input);
        let value = |name: &String| {
            let mut value = declared.clone().find(|input| input.name == *name).cloned();
            let value = value.get_or_insert_with(Default::default);
            value.name.clone_from(name);
            value.r#type.get_or_insert_with(float_of_any_shape);
            std::mem::take(value)
        };
        graph.input = inputs.iter().map(value).collect();
        graph.output = outputs
            .iter()
            .map(|name| tract_onnx::pb::ValueInfoProto { name: name.clone(), ..Default::default() })
            .collect();
        ModelProto { graph: Some(graph), ..self.shell_without_graph() }
    }

    /// The whole model, with what its fused nodes compute by node name.
    pub(super) fn finish(mut self, inputs: &[String]) -> (ModelProto, HashMap<String, Fused>) {
        let outputs = std::mem::take(&mut self.outputs);
        let places = self.places();
        let model = self.model(&places, inputs, &outputs);
        (model, self.fused)
    }

    fn shell_without_graph(&self) -> ModelProto {
        ModelProto {
            ir_version: self.shell.ir_version,
            opset_import: self.shell.opset_import.clone(),
            ..ModelProto::default()
        }
    }
}

fn enter(
    producers: &mut HashMap<String, usize>,
    users: &mut HashMap<String, Vec<usize>>,
    at: usize,
    node: &NodeProto,
) {
    for output in node.output.iter().filter(|name| !name.is_empty()) {
        producers.insert(output.clone(), at);
    }
    for_each_use(node, &mut |name| users.entry(name.to_owned()).or_default().push(at));
}

/// Calls `with` for each value that `node` reads, in its subgraphs too.
fn for_each_use(node: &NodeProto, with: &mut dyn FnMut(&str)) {
    for name in node.input.iter().filter(|name| !name.is_empty()) {
        with(name);
    }
    for attribute in &node.attribute {
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            for inner in &graph.node {
                for_each_use(inner, with);
            }
            for output in &graph.output {
                with(&output.name);
            }
        }
    }
}

/// Whether `node` is the standard operator `op_type`.
pub(super) fn is_default(node: &NodeProto, op_type: &str) -> bool {
    node.op_type == op_type && (node.domain.is_empty() || node.domain == "ai.onnx")
}

/// The attribute `name` of `node`.
pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// An integer attribute, or `default`.
pub(super) fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |attribute| attribute.i)
}

/// What makes two nodes compute the same.
fn identity(node: &NodeProto) -> Vec<u8> {
    let mut key = format!("{}\0{}", node.domain, node.op_type).into_bytes();
    for input in &node.input {
        key.push(0);
        key.extend_from_slice(input.as_bytes());
    }
    key.push(1);
    for attribute in &node.attribute {
        key.extend_from_slice(format!("{attribute:?}").as_bytes());
    }
    key
}

fn float_of_any_shape() -> tract_onnx::pb::TypeProto {
    use tract_onnx::pb::{TypeProto, type_proto};
    let tensor = type_proto::Tensor { elem_type: 1, shape: None };
    TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }
}

/// The tensor that a `Constant` node gives, under the name of its output.
fn constant(node: &mut NodeProto) -> Option<TensorProto> {
    if !is_default(node, "Constant") {
        return None;
    }
    let [name] = node.output.as_slice() else { return None };
    let name = name.clone();
    let [attribute] = node.attribute.as_mut_slice() else { return None };
    let tensor = match attribute.name.as_str() {
        "value" => attribute.t.take()?,
        "value_int" => int_tensor(&[], vec![attribute.i]),
        "value_ints" => {
            int_tensor(&[i64::try_from(attribute.ints.len()).ok()?], attribute.ints.clone())
        }
        "value_float" => {
            TensorProto { data_type: 1, float_data: vec![attribute.f], ..TensorProto::default() }
        }
        _ => return None,
    };
    Some(TensorProto { name, ..tensor })
}

fn int_tensor(dims: &[i64], int64_data: Vec<i64>) -> TensorProto {
    TensorProto { data_type: 7, dims: dims.to_vec(), int64_data, ..TensorProto::default() }
}
