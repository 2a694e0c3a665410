//! Progress bars for long work, on standard error and only where a person looks at a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts bytes.
pub(crate) fn bytes(label: &str, bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes).with_message(label.to_owned());
    let template = "{msg:32} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
