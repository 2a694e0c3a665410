//! Who is asking: the administrator by a bearer token or a console session, a device by its certificate.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use axum::http::{HeaderMap, header};
use data_encoding::HEXLOWER;
use protocol::time::UnixMs;
use ring::hmac;

use crate::secret;

/// How long a console session holds.
pub const SESSION_MS: u64 = 12 * 3_600_000;
/// Name of the console's cookie.
pub const COOKIE: &str = "__Host-socle";
const ADDRESSES_MAX: usize = 4096;
const WINDOW_MS: u64 = 60_000;

/// The administrator's token, never printed.
#[derive(Clone)]
pub struct AdminToken(String);

impl AdminToken {
    /// The token as `init` wrote it.
    pub const fn new(token: String) -> Self {
        Self(token)
    }

    /// Whether `offered` is it.
    pub fn is(&self, offered: &str) -> bool {
        secret::same(self.0.as_bytes(), offered.as_bytes())
    }

    /// Whether a request carries it as a bearer token.
    pub fn in_header(&self, headers: &HeaderMap) -> bool {
        headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .is_some_and(|offered| self.is(offered.trim()))
    }

    /// The cookie of a new console session.
    pub fn session(&self, now: UnixMs) -> String {
        let until = now.plus(SESSION_MS).0;
        let tag = hmac::sign(&self.session_key(), &until.to_be_bytes());
        format!("{until}.{}", HEXLOWER.encode(tag.as_ref()))
    }

    /// Whether a request carries the cookie of a session that holds.
    pub fn in_session(&self, headers: &HeaderMap, now: UnixMs) -> bool {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
            .any(|cookie| self.session_holds(cookie, now))
    }

    fn session_holds(&self, cookie: &str, now: UnixMs) -> bool {
        let parts = cookie.split_once('.');
        let Some((until, tag)) = parts.and_then(|(until, tag)| {
            Some((until.parse::<u64>().ok()?, HEXLOWER.decode(tag.as_bytes()).ok()?))
        }) else {
            return false;
        };
        hmac::verify(&self.session_key(), &until.to_be_bytes(), &tag).is_ok() && now.0 < until
    }

    /// Sessions are signed by a key made from the token: changing the token ends them all.
    fn session_key(&self) -> hmac::Key {
        let outer = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes());
        let key = hmac::sign(&outer, b"socle console session 1");
        hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())
    }
}

/// Counts attempts by address and minute. Bounded: when too many addresses are known, old windows are forgotten, and
/// if all are new, the newcomer is refused.
pub struct Limiter {
    most: u32,
    windows: Mutex<HashMap<IpAddr, (UnixMs, u32)>>,
}

impl Limiter {
    /// At most `most` attempts a minute from one address.
    pub fn new(most: u32) -> Self {
        Self { most, windows: Mutex::default() }
    }

    /// Whether one more attempt is allowed.
    pub fn allows(&self, address: IpAddr, now: UnixMs) -> bool {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= ADDRESSES_MAX && !windows.contains_key(&address) {
            windows.retain(|_, (start, _)| now.since(*start) < WINDOW_MS);
            if windows.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let (start, count) = windows.entry(address).or_insert((now, 0));
        if now.since(*start) >= WINDOW_MS {
            (*start, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const NOW: UnixMs = UnixMs(1_000_000);

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn only_the_token_opens() {
        let token = AdminToken::new("right".into());
        for (value, opens) in
            [("Bearer right", true), ("Bearer wrong", false), ("right", false), ("Bearer ", false)]
        {
            let headers = headers(header::AUTHORIZATION, value);
            assert_eq!(token.in_header(&headers), opens, "{value}");
        }
        assert!(!token.in_header(&HeaderMap::new()));
    }

    #[test]
    fn a_session_holds_for_its_time_and_its_token() {
        let token = AdminToken::new("right".into());
        let cookie = token.session(NOW);
        let carried = headers(header::COOKIE, &format!("a=b; {COOKIE}={cookie}"));
        assert!(token.in_session(&carried, NOW));
        assert!(!token.in_session(&carried, NOW.plus(SESSION_MS)));
        assert!(!AdminToken::new("changed".into()).in_session(&carried, NOW));
        let (until, tag) = cookie.split_once('.').unwrap();
        let longer = format!("{}{}", until, 0);
        let forged = headers(header::COOKIE, &format!("{COOKIE}={longer}.{tag}"));
        assert!(!token.in_session(&forged, NOW));
    }

    #[test]
    fn attempts_are_bounded_by_address_and_minute() {
        let limiter = Limiter::new(2);
        let one: IpAddr = [127, 0, 0, 1].into();
        assert!(limiter.allows(one, NOW) && limiter.allows(one, NOW));
        assert!(!limiter.allows(one, NOW));
        assert!(limiter.allows([127, 0, 0, 2].into(), NOW));
        assert!(limiter.allows(one, NOW.plus(WINDOW_MS)));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded() {
        let limiter = Limiter::new(1);
        for number in 0..u32::try_from(ADDRESSES_MAX).unwrap() {
            assert!(limiter.allows(std::net::Ipv4Addr::from_bits(number).into(), NOW));
        }
        let newcomer: IpAddr = [200, 0, 0, 1].into();
        assert!(!limiter.allows(newcomer, NOW));
        assert!(limiter.allows(newcomer, NOW.plus(WINDOW_MS)));
    }
}
