//! Launch of `linear_q8.wgsl`: f32 activations times Q8 weights, with or without a bias.

use std::time::Duration;

use crate::device::{Buffer, DeviceError, Gpu};
use crate::q8_weights::Q8Weights;

const BODY: &str = include_str!("linear_q8.wgsl");
/// Columns of a tile; the same in the shader.
const TILE_COLUMNS: u32 = 64;
/// Threads along one side of a workgroup; the same in the shader.
const SIDE: u32 = 16;
/// Workgroups along one axis that every adapter takes.
const GROUPS_MAX: u32 = 65_535;

/// One compilation of the shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// 16 rows: single requests and short texts.
    Narrow,
    /// 64 rows: batches.
    Wide,
}

impl Tile {
    /// Every variant that can be launched.
    pub const ALL: [Self; 2] = [Self::Narrow, Self::Wide];

    /// The tile that wastes least on `rows` rows.
    pub fn fitting(rows: u32) -> Self {
        if rows <= Self::Narrow.rows() { Self::Narrow } else { Self::Wide }
    }

    /// The shader's text for this variant.
    pub fn source(self) -> String {
        format!("const ROWS_PER_THREAD: u32 = {}u;\n{BODY}", self.rows_per_thread())
    }

    fn rows_per_thread(self) -> u32 {
        match self {
            Self::Narrow => 1,
            Self::Wide => 4,
        }
    }

    fn rows(self) -> u32 {
        SIDE * self.rows_per_thread()
    }
}

/// Why a launch was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The input is not whole rows.
    #[error("the input holds {length} numbers, which is not a whole number of rows of {k}")]
    Input {
        /// Its length.
        length: usize,
        /// The length of a row.
        k: usize,
    },
    /// The bias is not one number per column.
    #[error("the bias holds {length} numbers, the weights have {n} columns")]
    Bias {
        /// Its length.
        length: usize,
        /// Columns of the weights.
        n: usize,
    },
    /// A side or a product of sides is more than the kernel can count.
    #[error("{m} × {k} × {n} is more than one launch can hold: split the batch")]
    TooLarge {
        /// Rows of the input.
        m: usize,
        /// Length of a row.
        k: usize,
        /// Columns of the weights.
        n: usize,
    },
    /// The device did not do it.
    #[error("running the linear kernel on the GPU")]
    Device {
        /// Why.
        source: DeviceError,
    },
}

impl From<DeviceError> for LaunchError {
    fn from(source: DeviceError) -> Self {
        Self::Device { source }
    }
}

/// The kernel, compiled for one device.
#[derive(Debug)]
pub struct LinearQ8 {
    narrow: wgpu::ComputePipeline,
    wide: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// Weights that live on the device.
#[derive(Debug)]
pub struct ResidentLinear {
    k: usize,
    n: usize,
    quants: Buffer,
    scales: Buffer,
    bias: Option<Buffer>,
}

impl ResidentLinear {
    /// Uploads `weights` and, where there is one, their `bias` of `weights.n()` numbers.
    ///
    /// # Errors
    /// [`LaunchError::Bias`], or [`LaunchError::Device`] when there is no room.
    pub fn upload(
        gpu: &Gpu,
        weights: &Q8Weights,
        bias: Option<&[f32]>,
    ) -> Result<Self, LaunchError> {
        let (k, n) = (weights.k(), weights.n());
        if let Some(bias) = bias.filter(|bias| bias.len() != n) {
            return Err(LaunchError::Bias { length: bias.len(), n });
        }
        Ok(Self {
            k,
            n,
            quants: gpu.upload("linear weights", weights.quants())?,
            scales: gpu.upload("linear scales", weights.scales())?,
            bias: bias.map(|bias| gpu.upload("linear bias", bias)).transpose()?,
        })
    }
}

/// The sides of one launch, checked against what a `u32` index and the grid can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Shape {
    m: u32,
    k: u32,
    n: u32,
    biased: u32,
}

impl Shape {
    fn checked(length: usize, weights: &ResidentLinear) -> Result<Self, LaunchError> {
        let (k, n) = (weights.k, weights.n);
        if length == 0 || !length.is_multiple_of(k) {
            return Err(LaunchError::Input { length, k });
        }
        let biased = u32::from(weights.bias.is_some());
        sides(length / k, k, n)
            .map(|[m, k, n]| Self { m, k, n, biased })
            .ok_or(LaunchError::TooLarge { m: length / k, k, n })
    }

    fn groups(self, tile: Tile) -> [u32; 2] {
        [self.n.div_ceil(TILE_COLUMNS), self.m.div_ceil(tile.rows())]
    }
}

/// The sides as the shader counts them, if each matrix can be indexed and the grid be dispatched.
fn sides(m: usize, k: usize, n: usize) -> Option<[u32; 3]> {
    let [m, k, n] = [m, k, n].map(|side| u32::try_from(side).ok());
    let (m, k, n) = (m?, k?, n?);
    m.checked_mul(k)?;
    n.checked_mul(k)?;
    m.checked_mul(n)?;
    let groups = [n.div_ceil(TILE_COLUMNS), m.div_ceil(Tile::fitting(m).rows())];
    groups.iter().all(|groups| *groups <= GROUPS_MAX).then_some([m, k, n])
}

impl LinearQ8 {
    /// Compiles every variant.
    ///
    /// # Errors
    /// [`LaunchError::Device`] when the driver refuses a shader.
    pub fn compile(gpu: &Gpu) -> Result<Self, LaunchError> {
        let compiled = gpu.checked("compiling `linear_q8.wgsl`", |device| {
            let layout = layout(device);
            let [narrow, wide] = Tile::ALL.map(|tile| pipeline(device, &layout, tile));
            Self { narrow, wide, layout }
        })?;
        Ok(compiled)
    }

    /// `out[m, n] = Σₖ input[m, k] · scale[k/32, n] · q[k, n] + bias[n]`, all row-major f32; as
    /// many rows as `input` holds. Each number is within
    /// [`crate::oracle::Expected::tolerance`] of [`crate::oracle::linear_q8`].
    ///
    /// # Errors
    /// [`LaunchError`]; the device stays usable unless it says [`DeviceError::Lost`].
    pub fn run(
        &self,
        gpu: &Gpu,
        weights: &ResidentLinear,
        input: &[f32],
        wait: Duration,
    ) -> Result<Vec<f32>, LaunchError> {
        let shape = Shape::checked(input.len(), weights)?;
        let length = shape.m as usize * shape.n as usize;
        let input = gpu.upload("linear input", input)?;
        let output = gpu.zeros("linear output", (length * size_of::<f32>()) as u64)?;
        let sides = gpu.upload_uniform("linear shape", &shape)?;
        let bound = gpu.checked("binding the linear kernel", |device| {
            let buffers = [
                &sides,
                &input,
                &weights.quants,
                &weights.scales,
                weights.bias.as_ref().unwrap_or(&weights.scales),
                &output,
            ];
            let mut binding = 0;
            let entries = buffers.map(|buffer| {
                let entry = wgpu::BindGroupEntry { binding, resource: buffer.binding() };
                binding += 1;
                entry
            });
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("linear_q8"),
                layout: &self.layout,
                entries: &entries,
            })
        })?;
        let tile = Tile::fitting(shape.m);
        let [across, down] = shape.groups(tile);
        let out = gpu.compute("running the linear kernel", wait, (&output, length), |pass| {
            pass.set_pipeline(match tile {
                Tile::Narrow => &self.narrow,
                Tile::Wide => &self.wide,
            });
            pass.set_bind_group(0, &bound, &[]);
            pass.dispatch_workgroups(across, down, 1);
        })?;
        Ok(out)
    }
}

fn layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    let reads = wgpu::BufferBindingType::Storage { read_only: true };
    let writes = wgpu::BufferBindingType::Storage { read_only: false };
    let mut binding = 0;
    let entries =
        [wgpu::BufferBindingType::Uniform, reads, reads, reads, reads, writes].map(|ty| {
            let entry = wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty,
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            };
            binding += 1;
            entry
        });
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("linear_q8"),
        entries: &entries,
    })
}

fn pipeline(
    device: &wgpu::Device,
    layout: &wgpu::BindGroupLayout,
    tile: Tile,
) -> wgpu::ComputePipeline {
    // With the library's own bounds checks: the trusted way round them waits for a measured need.
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some("linear_q8"),
        source: wgpu::ShaderSource::Wgsl(tile.source().into()),
    });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some("linear_q8"),
        bind_group_layouts: &[Some(layout)],
        immediate_size: 0,
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("linear_q8"),
        layout: Some(&layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::q8_weights::BLOCK;

    #[test]
    fn constants_are_those_of_the_shader() {
        for line in [
            format!("const SIDE: u32 = {SIDE}u;"),
            format!("const COLUMNS_PER_THREAD: u32 = {}u;", TILE_COLUMNS / SIDE),
            format!("const BLOCK_VECTORS: u32 = {}u;", BLOCK / 4),
        ] {
            assert!(BODY.contains(&line), "linear_q8.wgsl lacks `{line}`");
        }
    }

    #[test]
    fn a_shape_that_overflows_is_refused_before_the_gpu_sees_it() {
        let cases = [
            ((1, 32, 1), true),
            ((4_194_240, 32, 1), true),
            ((4_194_241, 32, 1), false),
            ((1, 32, 4_194_240), true),
            ((1, 32, 4_194_241), false),
            ((65_536, 65_536, 1), false),
            ((1, 65_536, 65_536), false),
            ((65_536, 32, 65_536), false),
            ((usize::MAX, 32, 1), false),
        ];
        for ((m, k, n), fits) in cases {
            assert_eq!(sides(m, k, n).is_some(), fits, "{m} × {k} × {n}");
        }
    }
}
