//! Which redirects are followed. Pure.

use ureq::http::Uri;

/// Most redirects of one request.
pub const FOLLOWED_MAX: usize = 3;

/// Whether a status sends us elsewhere with the same request.
pub const fn is_one(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// Where `location`, given in answer to a request for `from`, leads; or why it is not gone to. Another host is taken
/// only over TLS, and TLS is never left.
pub fn target(from: &str, location: &str) -> Result<String, &'static str> {
    let here: Uri = from.parse().map_err(|_| "the address asked is none")?;
    let there: Uri = location.parse().map_err(|_| "that is no address")?;
    let (Some(scheme), Some(authority)) = (here.scheme_str(), here.authority()) else {
        return Err("the address asked is none");
    };
    match (there.scheme_str(), there.authority()) {
        (None, None) if location.starts_with('/') && !location.starts_with("//") => {
            Ok(format!("{scheme}://{authority}{location}"))
        }
        (Some("https"), Some(_)) => Ok(location.to_owned()),
        (Some("http"), Some(other)) if scheme == "http" && other == authority => {
            Ok(location.to_owned())
        }
        (Some("http"), Some(_)) => Err("another host, or a step out of TLS, is not followed"),
        _ => Err("such an address is not followed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_or_the_same_host_is_followed() {
        let (tls, plain) = ("https://a.example:1/x?y", "http://a.example:1/x");
        let followed = [
            (tls, "https://b.example/z?w", "https://b.example/z?w"),
            (tls, "/z", "https://a.example:1/z"),
            (plain, "/z?q=1", "http://a.example:1/z?q=1"),
            (plain, "http://a.example:1/z", "http://a.example:1/z"),
            (plain, "https://b.example/z", "https://b.example/z"),
        ];
        for (from, location, expected) in followed {
            assert_eq!(target(from, location).as_deref(), Ok(expected));
        }
        let refused = [
            (tls, "http://a.example:1/z"),
            (plain, "http://b.example:1/z"),
            (plain, "http://a.example:2/z"),
            (tls, "z"),
            (tls, ""),
            (tls, "file:///etc/passwd"),
            (tls, "ftp://a.example/z"),
            (tls, "//b.example/z"),
            (tls, "https://"),
        ];
        for (from, location) in refused {
            assert!(target(from, location).is_err(), "{location}");
        }
    }
}
