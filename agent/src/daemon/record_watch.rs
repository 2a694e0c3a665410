//! Reads the boot record again and again, shows it in the status, and says when another release is to run.

use std::{sync::Arc, time::Duration};

use protocol::digest::Digest;
use slots::{boot::BootRecord, disk::RealDisk, layout::StateDir, record};
use tokio::{sync::watch, task, time};

use crate::{
    daemon::succession::{Ours, successor},
    observe::{clock, heartbeat::Beat, status::Status, stopping::stopped},
};

/// How often the record is read. It is two blocks of a file that is nearly always in the page cache.
const EVERY: Duration = Duration::from_millis(200);

/// Watches until `stop`, or until another release is to run: then says why.
pub async fn run(
    state: StateDir,
    ours: Option<Digest>,
    status: Arc<Status>,
    beat: Beat,
    mut stop: watch::Receiver<bool>,
) -> Option<String> {
    let mut at_start: Option<Ours> = None;
    loop {
        beat.tick();
        if let Some(record) = read(state.clone()).await {
            let at_start = at_start.get_or_insert_with(|| Ours {
                release: ours,
                at_start: record.state.clone(),
                started: clock::now(),
            });
            let reason = successor(at_start, &record.state);
            let known = status.look(|snapshot| snapshot.record.as_deref() == Some(&record));
            if !known {
                status.update(|snapshot| snapshot.record = Some(Arc::new(record)));
            }
            if reason.is_some() {
                beat.end();
                return reason;
            }
        }
        tokio::select! {
            () = time::sleep(EVERY) => {}
            () = stopped(&mut stop) => {
                beat.end();
                return None;
            }
        }
    }
}

async fn read(state: StateDir) -> Option<BootRecord> {
    let reading =
        task::spawn_blocking(move || record::load(&RealDisk, &state, clock::now()).record);
    match reading.await {
        Ok(record) => Some(record),
        Err(reason) => {
            tracing::error!(%reason, "reading the boot record failed; it is tried again");
            None
        }
    }
}
