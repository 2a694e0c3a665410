//! The bearer token of the local API: a random text in a file that only the agent's user reads.

use std::{io, path::PathBuf};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use slots::{
    disk::{self, Disk},
    layout::StateDir,
};

/// Name of the file in the identity folder.
const FILE: &str = "api-token";
const RANDOM_BYTES: usize = 32;
const FILE_BYTES_MAX: u64 = 1024;
/// Shorter ones could be guessed.
const TEXT_BYTES_MIN: usize = 32;

/// What a caller must present. Holds no token, only what recognises it in constant time.
#[derive(Clone, Debug)]
pub struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The system gives no random bytes.
    #[error("making the API token: the system gives no random bytes")]
    Random,
    /// The file.
    #[error("{doing} the API token `{}`", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that was not written by us.
    #[error("API token `{}` is not one line of at least {TEXT_BYTES_MIN} characters: remove the file, and a new one is made", .0.display())]
    Text(PathBuf),
}

impl Token {
    /// The token in the state folder; one is made when there is none.
    ///
    /// # Errors
    /// It cannot be read or made.
    pub fn in_state(state: &StateDir, disk: &dyn Disk) -> Result<Self, TokenError> {
        let path = state.identity().join(FILE);
        let failed = |doing| {
            let path = path.clone();
            move |source| TokenError::File { doing, path, source }
        };
        if disk.length(&path).map_err(failed("looking for"))?.is_none() {
            if disk.list(&state.identity()).is_err() {
                disk.create_dir(&state.identity()).map_err(failed("making a folder for"))?;
                disk.set_mode(&state.identity(), 0o700).map_err(failed("making a folder for"))?;
            }
            let mut random = [0; RANDOM_BYTES];
            SystemRandom::new().fill(&mut random).map_err(|_| TokenError::Random)?;
            let text = BASE64URL_NOPAD.encode(&random);
            disk::replace(disk, &path, text.as_bytes()).map_err(failed("writing"))?;
            disk.set_mode(&path, 0o600).map_err(failed("protecting"))?;
        }
        let bytes = disk.read(&path, FILE_BYTES_MAX).map_err(failed("reading"))?;
        let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
        if text.len() < TEXT_BYTES_MIN || text.contains(char::is_whitespace) {
            return Err(TokenError::Text(path));
        }
        Self::new(text)
    }

    /// A token that is `text`.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| TokenError::Random)?;
        let tag = hmac::sign(&key, text.as_bytes());
        Ok(Self { key, tag })
    }

    /// Whether the value of an `Authorization` header holds the token. Takes the same time wherever the two differ, since
    /// not the texts but their codes under a random key are compared.
    pub fn admits(&self, authorization: Option<&[u8]>) -> bool {
        let presented = authorization
            .and_then(|value| value.split_first_chunk::<7>())
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .map(|(_, text)| text.trim_ascii());
        presented.is_some_and(|text| hmac::verify(&self.key, text, self.tag.as_ref()).is_ok())
    }

    /// Whether the value of an `Authorization` header holds the token as the password of the Basic scheme, in which a
    /// browser sends it.
    pub fn admits_password(&self, authorization: Option<&[u8]>) -> bool {
        let decoded = authorization
            .and_then(|value| value.split_first_chunk::<6>())
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"basic "))
            .and_then(|(_, text)| BASE64.decode(text.trim_ascii()).ok());
        let password = decoded.as_deref().and_then(|pair| {
            let colon = pair.iter().position(|byte| *byte == b':')?;
            pair.get(colon + 1..)
        });
        password.is_some_and(|text| hmac::verify(&self.key, text, self.tag.as_ref()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use slots::disk::RealDisk;

    use super::*;

    #[test]
    fn only_the_token_is_admitted() {
        let token = Token::new("0123456789abcdef").unwrap();
        let cases: [(Option<&[u8]>, bool); 7] = [
            (Some(b"Bearer 0123456789abcdef"), true),
            (Some(b"bearer  0123456789abcdef "), true),
            (Some(b"Bearer 0123456789abcdeF"), false),
            (Some(b"Bearer "), false),
            (Some(b"Basic 0123456789abcdef"), false),
            (Some(b"0123456789abcdef"), false),
            (None, false),
        ];
        for (presented, expected) in cases {
            assert_eq!(token.admits(presented), expected, "{presented:?}");
        }
    }

    #[test]
    fn a_browsers_password_is_the_token() {
        let token = Token::new("0123456789abcdef").unwrap();
        let basic = |pair: &str| format!("Basic {}", BASE64.encode(pair.as_bytes()));
        let cases = [
            (basic("anyone:0123456789abcdef"), true),
            (basic(":0123456789abcdef"), true),
            (basic("0123456789abcdef"), false),
            (basic("a:0123456789abcdef:"), false),
            ("Basic %%%".to_owned(), false),
            ("Bearer 0123456789abcdef".to_owned(), false),
        ];
        for (presented, expected) in cases {
            assert_eq!(token.admits_password(Some(presented.as_bytes())), expected, "{presented}");
        }
    }

    #[test]
    fn the_token_is_made_once_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        Token::in_state(&state, &RealDisk).unwrap();
        let path = state.identity().join(FILE);
        let text = RealDisk.read(&path, 1000).unwrap();
        let again = Token::in_state(&state, &RealDisk).unwrap();
        assert!(again.admits(Some(&[b"Bearer ", text.as_slice()].concat())));
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(path), mode(state.identity())), (0o600, 0o700));
    }

    #[test]
    fn a_token_file_that_could_be_guessed_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        RealDisk.create_dir(&state.identity()).unwrap();
        disk::replace(&RealDisk, &state.identity().join(FILE), b"short").unwrap();
        let message = Token::in_state(&state, &RealDisk).unwrap_err().to_string();
        assert!(message.contains("api-token") && message.contains("remove"), "{message}");
    }
}
