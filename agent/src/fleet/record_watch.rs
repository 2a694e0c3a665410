//! The boot record, read again and again: the gateway's only way to learn what the updater did.

use std::{sync::Arc, time::Duration};

use protocol::time::UnixMs;
use slots::{
    boot::BootRecord,
    disk::RealDisk,
    layout::StateDir,
    record::{self, Loaded},
};
use tokio::{sync::watch, task::spawn_blocking};

/// The newest record; none before the first look.
pub type Records = watch::Receiver<Option<Arc<BootRecord>>>;

/// Looks every `every` and publishes what changed. Ends when nobody listens.
pub async fn run(
    state: StateDir,
    every: Duration,
    published: watch::Sender<Option<Arc<BootRecord>>>,
) {
    let mut newest = 0;
    let mut ticks = tokio::time::interval(every);
    while !published.is_closed() {
        ticks.tick().await;
        let (state, known) = (state.clone(), newest);
        // The time only matters to a record that is made up because there is none; at 0 it is the same each time.
        let look = spawn_blocking(move || {
            let loaded = record::load(&RealDisk, &state, UnixMs(0));
            if loaded.generation > known {
                // The controller hears of it: it must not go with the power.
                record::settle(&RealDisk, &state);
            }
            loaded
        })
        .await;
        let Ok(Loaded { record, generation, .. }) = look else { return };
        // The other copy is older: it is seen for a moment while the newest is being written.
        if generation >= newest {
            newest = generation;
            published.send_if_modified(|shown| {
                let changed = shown.as_deref() != Some(&record);
                if changed {
                    *shown = Some(Arc::new(record));
                }
                changed
            });
        }
    }
}
