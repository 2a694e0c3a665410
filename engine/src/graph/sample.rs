//! Small encoders for tests, written as exporters write them.

use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};

pub(super) const WIDTH: usize = 64;
pub(super) const HEADS: usize = 2;
pub(super) const INNER: usize = 128;
pub(super) const ROWS: usize = 40;

/// How weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Float,
    Int8AtRest,
    Dynamic,
    Rounded,
    /// So many bits, in blocks of so many.
    Blocks(u8, usize),
}

/// What the mask does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MaskForm {
    Padding,
    Causal,
    Window,
}

/// A graph being written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) graph: GraphProto,
    seed: u64,
}

impl Writer {
    pub(super) fn new(seed: u64) -> Self {
        let mut writer = Self { seed, ..Self::default() };
        for name in ["input_ids", "attention_mask", "token_type_ids"] {
            let tensor = type_proto::Tensor { elem_type: 7, shape: Some(shape(2)) };
            let value = Some(type_proto::Value::TensorType(tensor));
            let r#type = Some(TypeProto { value, ..TypeProto::default() });
            let value = ValueInfoProto { name: name.into(), r#type, ..ValueInfoProto::default() };
            writer.graph.input.push(value);
        }
        writer
    }

    /// A number between -1 and 1.
    pub(super) fn random(&mut self) -> f32 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(super) fn node(&mut self, op: &str, inputs: &[&str], output: &str) -> String {
        self.with(op, inputs, output, Vec::new())
    }

    pub(super) fn with(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<AttributeProto>,
    ) -> String {
        let domain = if ["MatMulNBits", "GatherBlockQuantized"].contains(&op) {
            "com.microsoft"
        } else {
            ""
        };
        self.graph.node.push(NodeProto {
            name: output.into(),
            op_type: op.into(),
            domain: domain.into(),
            input: inputs.iter().copied().map(Into::into).collect(),
            output: vec![output.into()],
            attribute,
            ..NodeProto::default()
        });
        output.into()
    }

    pub(super) fn floats(&mut self, name: &str, dims: &[usize], numbers: &[f32]) -> String {
        let raw = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.tensor(name, 1, dims, raw)
    }

    pub(super) fn ints(&mut self, name: &str, dims: &[usize], numbers: &[i64]) -> String {
        let raw = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.tensor(name, 7, dims, raw)
    }

    pub(super) fn tensor(
        &mut self,
        name: &str,
        kind: i32,
        dims: &[usize],
        raw_data: Vec<u8>,
    ) -> String {
        self.graph.initializer.push(TensorProto {
            name: name.into(),
            data_type: kind,
            dims: dims.iter().map(|dim| *dim as i64).collect(),
            raw_data,
            ..TensorProto::default()
        });
        name.into()
    }

    pub(super) fn row(&mut self, name: &str, len: usize, middle: f32) -> String {
        let numbers: Vec<f32> = (0..len).map(|_| middle + 0.2 * self.random()).collect();
        self.floats(name, &[len], &numbers)
    }

    /// `x · w + b` with `w` kept as `form` says.
    pub(super) fn linear(&mut self, form: Form, x: &str, k: usize, n: usize, name: &str) -> String {
        let reach = 1.5 / (k as f32).sqrt();
        let w: Vec<f32> = (0..k * n).map(|_| self.random() * reach).collect();
        let scale = reach / 127.0;
        let q: Vec<u8> = w.iter().map(|w| ((w / scale).round() as i8).cast_unsigned()).collect();
        let of = |part: &str| format!("{name}.{part}");
        let product = of("product");
        match form {
            Form::Float => {
                let w = self.floats(&of("w"), &[k, n], &w);
                self.node("MatMul", &[x, &w], &product);
            }
            Form::Int8AtRest => {
                let q = self.tensor(&of("q"), 3, &[k, n], q);
                let scales = vec![scale; n];
                let scales = self.floats(&of("scale"), &[1, n], &scales);
                let f = self.with("Cast", &[&q], &of("f"), vec![int("to", 1)]);
                let w = self.node("Mul", &[&f, &scales], &of("w"));
                self.node("MatMul", &[x, &w], &product);
            }
            Form::Dynamic => {
                let (q8, sx, zx) = (format!("{x}.q8"), format!("{x}.s8"), format!("{x}.z8"));
                if !self.graph.node.iter().any(|node| node.output.contains(&q8)) {
                    self.node("DynamicQuantizeLinear", &[x], &q8);
                    if let Some(node) = self.graph.node.last_mut() {
                        node.output.extend([sx.clone(), zx.clone()]);
                    }
                }
                let q = self.tensor(&of("q"), 3, &[k, n], q);
                let sw = self.floats(&of("sw"), &[], &[scale]);
                let zw = self.tensor(&of("zw"), 3, &[], vec![0]);
                let whole = self.node("MatMulInteger", &[&q8, &q, &zx, &zw], &of("whole"));
                let cast = self.with("Cast", &[&whole], &of("cast"), vec![int("to", 1)]);
                let both = self.node("Mul", &[&sx, &sw], &of("scales"));
                self.node("Mul", &[&cast, &both], &product);
            }
            Form::Rounded => {
                let step = self.floats(&of("step"), &[], &[0.03]);
                let zero = self.tensor(&of("zero"), 2, &[], vec![128]);
                let rounded = self.rounded(x, &step, &zero, &of("x"));
                let q = self.tensor(&of("q"), 3, &[k, n], q);
                let sw = self.floats(&of("sw"), &[], &[scale]);
                let zw = self.tensor(&of("zw"), 3, &[], vec![0]);
                let w = self.node("DequantizeLinear", &[&q, &sw, &zw], &of("w"));
                let exact = self.node("MatMul", &[&rounded, &w], &of("exact"));
                let fine = self.floats(&of("fine"), &[], &[0.05]);
                let again = self.rounded(&exact, &fine, &zero, &of("y"));
                self.node("Identity", &[&again], &product);
            }
            Form::Blocks(bits, block) => {
                let (codes, scales) = blocks(&w, (k, n), bits, block);
                let bytes = block * usize::from(bits) / 8;
                let codes = self.tensor(&of("codes"), 2, &[n, k / block, bytes], codes);
                let scales = self.floats(&of("scales"), &[n * k / block], &scales);
                let sizes = [
                    ("K", k as i64),
                    ("N", n as i64),
                    ("bits", i64::from(bits)),
                    ("block_size", block as i64),
                ];
                let sizes = sizes.map(|(name, size)| int(name, size)).to_vec();
                self.with("MatMulNBits", &[x, &codes, &scales], &product, sizes);
            }
        }
        let bias = self.row(&of("bias"), n, 0.0);
        self.node("Add", &[&bias, &product], name)
    }

    fn rounded(&mut self, x: &str, step: &str, zero: &str, name: &str) -> String {
        let q = self.node("QuantizeLinear", &[x, step, zero], &format!("{name}.quantized"));
        self.node("DequantizeLinear", &[&q, step, zero], &format!("{name}.rounded"))
    }

    fn norm(&mut self, x: &str, name: &str) -> String {
        let of = |part: &str| format!("{name}.{part}");
        let (gamma, beta) = (self.row(&of("gamma"), WIDTH, 1.0), self.row(&of("beta"), WIDTH, 0.0));
        let last = || {
            vec![AttributeProto {
                name: "axes".into(),
                ints: vec![-1],
                r#type: 7,
                ..AttributeProto::default()
            }]
        };
        let mean = self.with("ReduceMean", &[x], &of("mean"), last());
        let centred = self.node("Sub", &[x, &mean], &of("centred"));
        let two = self.floats(&of("two"), &[], &[2.0]);
        let square = self.node("Pow", &[&centred, &two], &of("square"));
        let variance = self.with("ReduceMean", &[&square], &of("variance"), last());
        let epsilon = self.floats(&of("epsilon"), &[], &[1e-5]);
        let shifted = self.node("Add", &[&variance, &epsilon], &of("shifted"));
        let root = self.node("Sqrt", &[&shifted], &of("root"));
        let quotient = self.node("Div", &[&centred, &root], &of("quotient"));
        let scaled = self.node("Mul", &[&quotient, &gamma], &of("scaled"));
        self.node("Add", &[&scaled, &beta], name)
    }

    fn heads(&mut self, x: &str, name: &str, perm: [i64; 4]) -> String {
        let of = |part: &str| format!("{name}.{part}");
        let shape = self.ints(&of("shape"), &[4], &[0, -1, HEADS as i64, (WIDTH / HEADS) as i64]);
        let apart = self.node("Reshape", &[x, &shape], &of("apart"));
        self.with("Transpose", &[&apart], name, vec![ints("perm", &perm)])
    }

    fn gelu(&mut self, x: &str, half: f32, name: &str) -> String {
        let of = |part: &str| format!("{name}.{part}");
        let root = self.floats(&of("root"), &[], &[std::f32::consts::SQRT_2]);
        let inner = self.node("Div", &[x, &root], &of("inner"));
        let erf = self.node("Erf", &[&inner], &of("erf"));
        let one = self.floats(&of("one"), &[], &[1.0]);
        let bell = self.node("Add", &[&erf, &one], &of("bell"));
        let product = self.node("Mul", &[x, &bell], &of("all"));
        let half = self.floats(&of("half"), &[], &[half]);
        self.node("Mul", &[&product, &half], name)
    }

    fn mask(&mut self, form: MaskForm) -> String {
        let axes = self.ints("mask.axes", &[2], &[1, 2]);
        let wide = self.node("Unsqueeze", &["attention_mask", &axes], "mask.wide");
        let float = self.with("Cast", &[&wide], "mask.float", vec![int("to", 1)]);
        let one = self.floats("mask.one", &[], &[1.0]);
        let gone = self.node("Sub", &[&one, &float], "mask.gone");
        let far = self.floats("mask.far", &[], &[-1e9]);
        let padding = self.node("Mul", &[&gone, &far], "mask.padding");
        if form == MaskForm::Padding {
            return padding;
        }
        // 1 where a token may not look: after itself, or further than 100 tokens away.
        let most = 640;
        let hidden = |row: usize, column: usize| match form {
            MaskForm::Causal => column > row,
            MaskForm::Window | MaskForm::Padding => row.abs_diff(column) > 100,
        };
        let cells = (0..most * most).map(|at| f32::from(u8::from(hidden(at / most, at % most))));
        let cells: Vec<f32> = cells.map(|cell| cell * -1e9).collect();
        let all = self.floats("mask.all", &[1, 1, most, most], &cells);
        let length = self.length("mask");
        let (from, axes) =
            (self.ints("mask.from", &[2], &[0, 0]), self.ints("mask.along", &[2], &[2, 3]));
        let to = self.with("Concat", &[&length, &length], "mask.to", vec![int("axis", 0)]);
        let cut = self.node("Slice", &[&all, &from, &to, &axes], "mask.cut");
        self.node("Add", &[&padding, &cut], "mask.both")
    }

    /// The length of the sequence, as one number in a row.
    fn length(&mut self, name: &str) -> String {
        let of = |part: &str| format!("{name}.{part}");
        let shape = self.node("Shape", &["input_ids"], &of("ids.shape"));
        let at = self.ints(&of("at"), &[1], &[1]);
        self.node("Gather", &[&shape, &at], &of("tokens"))
    }

    /// Word, type and position embeddings, normalized.
    pub(super) fn embeddings(&mut self, form: Form) -> String {
        let table: Vec<f32> = (0..ROWS * WIDTH).map(|_| self.random()).collect();
        let words = match form {
            Form::Blocks(bits, block) => {
                let turned: Vec<f32> =
                    (0..WIDTH * ROWS).map(|at| table[at % ROWS * WIDTH + at / ROWS]).collect();
                let (codes, scales) = blocks(&turned, (WIDTH, ROWS), bits, block);
                let bytes = if bits == 8 { WIDTH } else { WIDTH / 2 };
                let codes = self.tensor("words.codes", 2, &[ROWS, bytes], codes);
                let scales = self.floats("words.scales", &[ROWS, WIDTH / block], &scales);
                let sizes = vec![int("bits", i64::from(bits)), int("block_size", block as i64)];
                self.with("GatherBlockQuantized", &[&codes, "input_ids", &scales], "words", sizes)
            }
            Form::Float | Form::Int8AtRest | Form::Dynamic | Form::Rounded => {
                let table = self.floats("words.table", &[ROWS, WIDTH], &table);
                self.node("Gather", &[&table, "input_ids"], "words")
            }
        };
        let types: Vec<f32> = (0..2 * WIDTH).map(|_| self.random()).collect();
        let types = self.floats("types.table", &[2, WIDTH], &types);
        let types = self.node("Gather", &[&types, "token_type_ids"], "types");
        let both = self.node("Add", &[&words, &types], "both");
        let places: Vec<f32> = (0..640 * WIDTH).map(|_| self.random()).collect();
        let table = self.floats("places.table", &[640, WIDTH], &places);
        let ids = self.ints("places.ids", &[1, 640], &(0..640).collect::<Vec<i64>>());
        let to = self.length("places");
        let (from, axes) =
            (self.ints("places.from", &[1], &[0]), self.ints("places.axes", &[1], &[1]));
        let ids = self.node("Slice", &[&ids, &from, &to, &axes], "places.now");
        let places = self.node("Gather", &[&table, &ids], "places");
        let all = self.node("Add", &[&both, &places], "all");
        self.norm(&all, "embedded")
    }

    /// One layer of a BERT.
    pub(super) fn layer(
        &mut self,
        form: Form,
        x: &str,
        mask: &str,
        half: f32,
        name: &str,
    ) -> String {
        let of = |part: &str| format!("{name}.{part}");
        let mut project = |part: &str, perm: [i64; 4]| {
            let linear = self.linear(form, x, WIDTH, WIDTH, &of(part));
            self.heads(&linear, &of(&format!("{part}.heads")), perm)
        };
        let q = project("q", [0, 2, 1, 3]);
        let k = project("k", [0, 2, 3, 1]);
        let v = project("v", [0, 2, 1, 3]);
        let scores = self.node("MatMul", &[&q, &k], &of("scores"));
        let root = self.floats(&of("root"), &[], &[((WIDTH / HEADS) as f32).sqrt()]);
        let scaled = self.node("Div", &[&scores, &root], &of("scaled"));
        let masked = self.node("Add", &[&scaled, mask], &of("masked"));
        let weights = self.with("Softmax", &[&masked], &of("weights"), vec![int("axis", -1)]);
        let context = self.node("MatMul", &[&weights, &v], &of("context"));
        let turned =
            self.with("Transpose", &[&context], &of("turned"), vec![ints("perm", &[0, 2, 1, 3])]);
        let shape = self.ints(&of("joined.shape"), &[3], &[0, -1, WIDTH as i64]);
        let joined = self.node("Reshape", &[&turned, &shape], &of("joined"));
        let out = self.linear(form, &joined, WIDTH, WIDTH, &of("out"));
        let sum = self.node("Add", &[&out, x], &of("attended"));
        let attended = self.norm(&sum, &of("norm1"));
        let up = self.linear(form, &attended, WIDTH, INNER, &of("up"));
        let bent = self.gelu(&up, half, &of("gelu"));
        let down = self.linear(form, &bent, INNER, WIDTH, &of("down"));
        let sum = self.node("Add", &[&down, &attended], &of("fed"));
        self.norm(&sum, &of("norm2"))
    }

    /// Two layers; the output is called `states`.
    pub(super) fn encoder(&mut self, form: Form, mask: MaskForm, half: f32) -> String {
        let mut x = self.embeddings(form);
        let mask = self.mask(mask);
        for at in 0..2 {
            x = self.layer(form, &x, &mask, half, &format!("layer{at}"));
        }
        self.node("Identity", &[&x], "states")
    }

    pub(super) fn finish(mut self, output: &str) -> ModelProto {
        let tensor = type_proto::Tensor { elem_type: 1, shape: None };
        let value = Some(type_proto::Value::TensorType(tensor));
        let r#type = Some(TypeProto { value, ..TypeProto::default() });
        self.graph.output.push(ValueInfoProto {
            name: output.into(),
            r#type,
            ..ValueInfoProto::default()
        });
        let opset = OperatorSetIdProto { version: 17, ..OperatorSetIdProto::default() };
        ModelProto { graph: Some(self.graph), opset_import: vec![opset], ..ModelProto::default() }
    }
}

fn shape(rank: usize) -> TensorShapeProto {
    let dim = tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimParam("d".into())),
        ..tensor_shape_proto::Dimension::default()
    };
    TensorShapeProto { dim: vec![dim; rank] }
}

pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: 2, ..AttributeProto::default() }
}

pub(super) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: ints.to_vec(),
        r#type: 7,
        ..AttributeProto::default()
    }
}

/// Codes and scales of `w`, `k × n`, as `n` rows of blocks of `size`.
fn blocks(w: &[f32], (k, n): (usize, usize), bits: u8, size: usize) -> (Vec<u8>, Vec<f32>) {
    let reach = if bits == 8 { 127.0 } else { 7.0 };
    let zero = if bits == 8 { 128.0 } else { 8.0 };
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for column in 0..n {
        for block in 0..k / size {
            let number = |at: usize| w[(block * size + at) * n + column];
            let numbers: Vec<f32> = (0..size).map(number).collect();
            let scale = numbers.iter().fold(0.0_f32, |most, number| most.max(number.abs())) / reach;
            let row: Vec<u8> =
                numbers.iter().map(|number| ((number / scale).round() + zero) as u8).collect();
            scales.push(scale);
            if bits == 8 {
                codes.extend(row);
            } else {
                codes.extend(row.chunks_exact(2).map(|pair| pair[0] | pair[1] << 4));
            }
        }
    }
    (codes, scales)
}
