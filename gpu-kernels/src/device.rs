//! An opened GPU: what can go wrong with it is a value here, and memory is counted.
//!
//! A lost device says nothing at submit and answers `Ok` to a poll; an allocation too many is not
//! refused before the driver falls over. So a result counts only when its read-back was mapped and
//! the fault flag is still clear, and every buffer is taken from a budget of our own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::bounded::{Unanswered, within};
use crate::probe::{AdapterInfo, AllowSoftware, Refusal, found};

/// What to open, and how much of it may be used.
#[derive(Clone, Copy, Debug)]
pub struct OpenRequest {
    /// Whether an adapter that computes on the CPU will do.
    pub software: AllowSoftware,
    /// The most bytes that buffers may hold together.
    pub memory_bytes_max: u64,
    /// How long opening may take.
    pub wait: Duration,
}

/// Why no device was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The driver hung or panicked.
    #[error("opening the GPU")]
    Unanswered {
        /// How it failed.
        source: Unanswered,
    },
    /// There is no adapter.
    #[error("opening the GPU: none is seen ({said}); inference runs on the CPU")]
    NoAdapter {
        /// What the graphics library said.
        said: String,
    },
    /// No adapter may be used.
    #[error("opening the GPU: the best adapter is refused")]
    Refused {
        /// Why the most preferred one is not used.
        source: Refusal,
    },
    /// The adapter would not be opened.
    #[error("opening the GPU `{name}`")]
    Request {
        /// Its name.
        name: String,
        /// What the driver said.
        source: wgpu::RequestDeviceError,
    },
}

/// What goes wrong on an opened device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device is gone, or did something no error scope asked about. Open it anew.
    #[error(
        "the GPU is lost ({why}): its results do not count; open it anew or go on with the CPU"
    )]
    Lost {
        /// What the driver said.
        why: String,
    },
    /// The budget has no room.
    #[error(
        "`{label}` needs {bytes} bytes of GPU memory, {held} of {bytes_max} are held: raise the \
         limit or load fewer models"
    )]
    Budget {
        /// The buffer.
        label: &'static str,
        /// Its size.
        bytes: u64,
        /// What is held already.
        held: u64,
        /// The budget.
        bytes_max: u64,
    },
    /// One buffer is more than the adapter can bind.
    #[error("`{label}` needs {bytes} bytes in one buffer, the GPU binds {bytes_max} at most")]
    BufferTooLarge {
        /// The buffer.
        label: &'static str,
        /// Its size.
        bytes: u64,
        /// The adapter's limit.
        bytes_max: u64,
    },
    /// An error scope caught something.
    #[error("{doing}: the GPU refused: {said}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What the library said.
        said: String,
    },
    /// It did not finish in time.
    #[error("{doing}: no result within {} ms; the GPU hangs or is overloaded", wait.as_millis())]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// How long was waited.
        wait: Duration,
    },
    /// The read-back could not be mapped.
    #[error("reading `{label}` back from the GPU failed: {said}")]
    ReadBack {
        /// The buffer.
        label: &'static str,
        /// What the library said.
        said: String,
    },
}

/// An opened GPU. Dropping it gives the device back.
#[derive(Debug)]
pub struct Gpu {
    adapter: AdapterInfo,
    device: wgpu::Device,
    queue: wgpu::Queue,
    fault: Arc<Mutex<Option<String>>>,
    held: Arc<AtomicU64>,
    memory_bytes_max: u64,
}

/// A buffer that kernels can bind; its bytes go back to the budget when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    raw: wgpu::Buffer,
    label: &'static str,
    bytes: u64,
    held: Arc<AtomicU64>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Buffer {
    /// Its size in bytes, a multiple of 4.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn binding(&self) -> wgpu::BindingResource<'_> {
        self.raw.as_entire_binding()
    }
}

impl Gpu {
    /// Opens the most preferred adapter that may be used.
    ///
    /// # Errors
    /// [`OpenError`]; the caller goes on with the CPU.
    pub fn open(request: OpenRequest) -> Result<Self, OpenError> {
        within(request.wait, "opening the GPU", move || opened(request))
            .map_err(|source| OpenError::Unanswered { source })?
    }

    /// What was opened.
    pub fn adapter(&self) -> &AdapterInfo {
        &self.adapter
    }

    /// Why the device can no longer be used, if so.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes that buffers hold now.
    pub fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Gives the device up at once; whatever is on it is lost.
    pub fn abandon(&self) {
        self.device.destroy();
        note(&self.fault, "it was given up".into());
    }

    /// A buffer of zeros.
    ///
    /// # Errors
    /// [`DeviceError`] when the budget, the adapter or the driver has no room.
    pub fn zeros(&self, label: &'static str, bytes: u64) -> Result<Buffer, DeviceError> {
        use wgpu::BufferUsages as Usage;
        self.buffer(label, bytes, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST)
    }

    /// A buffer that holds `data`.
    ///
    /// # Errors
    /// As [`Gpu::zeros`].
    pub fn upload<T: bytemuck::NoUninit>(
        &self,
        label: &'static str,
        data: &[T],
    ) -> Result<Buffer, DeviceError> {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let buffer = self.zeros(label, bytes.len() as u64)?;
        // A write must be whole words; only tensors of bytes can end within one.
        let whole = bytes.len() / 4 * 4;
        self.checked("uploading", |_| {
            self.queue.write_buffer(&buffer.raw, 0, &bytes[..whole]);
            if whole < bytes.len() {
                let mut last = [0; 4];
                last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
                self.queue.write_buffer(&buffer.raw, whole as u64, &last);
            }
        })?;
        Ok(buffer)
    }

    /// A buffer that holds the few numbers a kernel is launched with.
    ///
    /// # Errors
    /// As [`Gpu::zeros`].
    pub fn upload_uniform<T: bytemuck::NoUninit>(
        &self,
        label: &'static str,
        data: &T,
    ) -> Result<Buffer, DeviceError> {
        let bytes = bytemuck::bytes_of(data);
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = self.buffer(label, bytes.len() as u64, usage)?;
        self.checked("uploading", |_| self.queue.write_buffer(&buffer.raw, 0, bytes))?;
        Ok(buffer)
    }

    /// Submits what `record` records, waits, and returns the first `length` numbers of `from`.
    ///
    /// One submission holds the work and its read-back.
    ///
    /// # Errors
    /// [`DeviceError`]; an error after the submission says nothing about the device but that this
    /// result does not count, except [`DeviceError::Lost`].
    pub fn compute(
        &self,
        doing: &'static str,
        wait: Duration,
        from: (&Buffer, usize),
        record: impl FnOnce(&mut wgpu::ComputePass<'_>),
    ) -> Result<Vec<f32>, DeviceError> {
        let (source, length) = from;
        let bytes = (length * size_of::<f32>()) as u64;
        assert!(bytes <= source.bytes, "reading {bytes} of {} bytes", source.bytes);
        let back = self.buffer(
            "read-back",
            bytes,
            wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        )?;
        let submitted = self.checked(doing, |device| {
            let mut commands = device
                .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(doing) });
            record(&mut commands.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
            commands.copy_buffer_to_buffer(&source.raw, 0, &back.raw, 0, bytes);
            self.queue.submit([commands.finish()])
        })?;
        self.mapped(doing, wait, submitted, &back)
    }

    /// Runs `work` and reports what the library would otherwise panic about.
    ///
    /// # Errors
    /// [`DeviceError::Lost`] or [`DeviceError::Refused`].
    pub fn checked<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&wgpu::Device) -> T,
    ) -> Result<T, DeviceError> {
        self.sound()?;
        let scopes = [
            wgpu::ErrorFilter::Internal,
            wgpu::ErrorFilter::OutOfMemory,
            wgpu::ErrorFilter::Validation,
        ]
        .map(|filter| self.device.push_error_scope(filter));
        let done = work(&self.device);
        // Scopes are a stack: the last one pushed is the first to be asked.
        let caught: Vec<_> =
            scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect();
        self.sound()?;
        match caught.first() {
            Some(error) => Err(DeviceError::Refused { doing, said: error.to_string() }),
            None => Ok(done),
        }
    }

    fn mapped(
        &self,
        doing: &'static str,
        wait: Duration,
        submitted: wgpu::SubmissionIndex,
        back: &Buffer,
    ) -> Result<Vec<f32>, DeviceError> {
        let (answer, answered) = sync_channel(1);
        back.raw.map_async(wgpu::MapMode::Read, .., move |mapped| drop(answer.send(mapped)));
        let poll = wgpu::PollType::Wait { submission_index: Some(submitted), timeout: Some(wait) };
        let polled = self.device.poll(poll);
        self.sound()?;
        match polled {
            Ok(_) => {}
            Err(wgpu::PollError::Timeout) => return Err(DeviceError::Timeout { doing, wait }),
            Err(wrong @ wgpu::PollError::WrongSubmissionIndex(..)) => {
                return Err(DeviceError::Refused { doing, said: wrong.to_string() });
            }
        }
        let failed = |said: String| DeviceError::ReadBack { label: back.label, said };
        match answered.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(failed(why.to_string())),
            Err(_) => return Err(failed("the work ended and the mapping did not".into())),
        }
        let numbers = {
            let view = back.raw.get_mapped_range(..).map_err(|why| failed(why.to_string()))?;
            bytemuck::pod_collect_to_vec(&view)
        };
        self.sound()?;
        Ok(numbers)
    }

    fn buffer(
        &self,
        label: &'static str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<Buffer, DeviceError> {
        let bytes = bytes.max(4).next_multiple_of(4);
        if bytes > self.adapter.buffer_bytes_max {
            let bytes_max = self.adapter.buffer_bytes_max;
            return Err(DeviceError::BufferTooLarge { label, bytes, bytes_max });
        }
        self.held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
                held.checked_add(bytes).filter(|held| *held <= self.memory_bytes_max)
            })
            .map_err(|held| DeviceError::Budget {
                label,
                bytes,
                held,
                bytes_max: self.memory_bytes_max,
            })?;
        let made = self.checked("making a buffer", |device| {
            let descriptor = wgpu::BufferDescriptor {
                label: Some(label),
                size: bytes,
                usage,
                mapped_at_creation: false,
            };
            device.create_buffer(&descriptor)
        });
        match made {
            Ok(raw) => Ok(Buffer { raw, label, bytes, held: Arc::clone(&self.held) }),
            Err(why) => {
                self.held.fetch_sub(bytes, Ordering::AcqRel);
                Err(why)
            }
        }
    }

    fn sound(&self) -> Result<(), DeviceError> {
        match self.fault() {
            Some(why) => Err(DeviceError::Lost { why }),
            None => Ok(()),
        }
    }
}

fn opened(request: OpenRequest) -> Result<Gpu, OpenError> {
    let adapters = found(request.software).map_err(|said| OpenError::NoAdapter { said })?;
    let refused = adapters.first().and_then(|(_, info)| info.usable.clone().err());
    let Some((adapter, info)) = adapters.into_iter().find(|(_, info)| info.usable.is_ok()) else {
        return Err(refused.map_or_else(
            || OpenError::NoAdapter { said: "the list is empty".into() },
            |source| OpenError::Refused { source },
        ));
    };
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("socle"),
        // Nothing beyond the core is needed yet; what a kernel wants is asked for with the kernel.
        required_features: wgpu::Features::empty(),
        required_limits: adapter.limits(),
        experimental_features: wgpu::ExperimentalFeatures::disabled(),
        memory_hints: wgpu::MemoryHints::Performance,
        trace: wgpu::Trace::Off,
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
        .map_err(|source| OpenError::Request { name: info.name.clone(), source })?;
    let fault = Arc::new(Mutex::new(None));
    let lost = Arc::clone(&fault);
    device.set_device_lost_callback(move |reason, said| note(&lost, format!("{reason:?}: {said}")));
    let uncaught = Arc::clone(&fault);
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        note(&uncaught, error.to_string())
    }));
    Ok(Gpu {
        adapter: info,
        device,
        queue,
        fault,
        held: Arc::new(AtomicU64::new(0)),
        memory_bytes_max: request.memory_bytes_max,
    })
}

/// Keeps the first fault: it is the cause, the later ones follow from it.
fn note(fault: &Mutex<Option<String>>, why: String) {
    fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
}
