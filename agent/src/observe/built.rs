//! When this agent was built: no time before that is ever believed, whatever the clock says.

use protocol::time::UnixMs;

/// The time of the sources (`SOURCE_DATE_EPOCH`, else the last commit), not of the build: it is reproducible.
pub const AT: UnixMs = UnixMs(seconds(env!("SOCLE_BUILT_AT_S")) * 1000);

const fn seconds(text: &str) -> u64 {
    let (bytes, mut at, mut value) = (text.as_bytes(), 0, 0);
    while at < bytes.len() {
        value = value * 10 + (bytes[at] - b'0') as u64;
        at += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_knows_when_it_was_built() {
        assert_eq!(seconds("1795396229"), 1_795_396_229);
        let text = env!("SOCLE_BUILT_AT_S");
        assert_eq!(AT.0, text.parse::<u64>().unwrap() * 1000);
    }
}
