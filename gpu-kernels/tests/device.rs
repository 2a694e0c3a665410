//! What an opened device promises: its budget holds, and its errors are values.

mod adapter;

use gpu_kernels::device::DeviceError;

#[test]
fn the_budget_holds_and_a_dropped_buffer_gives_its_bytes_back() {
    let gpu = adapter::opened(1000);
    let first = gpu.zeros("first", 600).unwrap();
    let refused = gpu.zeros("second", 401).unwrap_err();
    assert!(
        matches!(
            refused,
            DeviceError::Budget { label: "second", bytes: 404, held: 600, bytes_max: 1000 }
        ),
        "{refused}"
    );
    drop(first);
    assert_eq!(gpu.held_bytes(), 0);
    let whole = gpu.zeros("second", 1000).unwrap();
    assert_eq!((whole.bytes(), gpu.held_bytes()), (1000, 1000));
}

#[test]
fn a_buffer_beyond_the_adapter_is_refused_before_the_driver_sees_it() {
    let gpu = adapter::opened(u64::MAX);
    let most = gpu.adapter().buffer_bytes_max;
    for bytes in [most + 1, 1 << 62] {
        let refused = gpu.zeros("huge", bytes).unwrap_err();
        assert!(matches!(refused, DeviceError::BufferTooLarge { label: "huge", .. }), "{refused}");
    }
    assert_eq!((gpu.held_bytes(), gpu.fault()), (0, None));
}

#[test]
fn a_shader_that_does_not_parse_is_a_value_and_the_device_goes_on() {
    let gpu = adapter::opened(1 << 20);
    let refused = gpu.checked("compiling nonsense", |device| {
        device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl("fn main( {".into()),
        })
    });
    let refused = refused.map(drop).unwrap_err();
    assert!(
        matches!(refused, DeviceError::Refused { doing: "compiling nonsense", .. }),
        "{refused}"
    );
    assert_eq!(gpu.fault(), None);
    assert!(gpu.upload("after", &[1f32, 2.0]).is_ok());
}

#[test]
fn a_device_given_up_refuses_everything() {
    let gpu = adapter::opened(1 << 20);
    gpu.abandon();
    let refused = gpu.upload("late", &[1u8, 2, 3]).unwrap_err();
    assert!(matches!(refused, DeviceError::Lost { .. }), "{refused}");
    assert!(gpu.fault().is_some());
}
