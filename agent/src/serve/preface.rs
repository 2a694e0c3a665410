//! Which version of HTTP a connection speaks. A client of HTTP/2 that knows the server speaks it begins with a fixed
//! preface (RFC 9113 §3.4), which no request of HTTP/1.1 begins with.

use std::{io, os::fd::AsFd};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    time,
};

use crate::serve::{
    conversation::{self, HEAD_MAX, Terms},
    multiplexed,
    taking::ended,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
    /// Too little was said.
    Unknown,
}

/// Answers what is asked on `stream`, in the version of HTTP that it speaks.
pub async fn serve<S>(mut stream: S, mut terms: Terms)
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static,
{
    let mut taking = terms.taking.clone();
    let told = tokio::select! {
        // What was said so far goes with the connection, wherever that goes; the other side knows what to do with it.
        () = ended(&mut taking) => Ok(Speaks::Http1),
        told = time::timeout(HEAD_MAX, listen(&mut stream, &mut terms.unread)) => {
            told.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
    };
    match told {
        Ok(Speaks::Http2) => multiplexed::converse(stream, terms).await,
        Ok(Speaks::Http1 | Speaks::Unknown) => conversation::converse(stream, terms).await,
        Err(reason) => tracing::debug!(%reason, "connection ended before its first request"),
    }
}

/// Reads into `said` until it is known, or the other side says no more.
async fn listen<S: AsyncRead + Unpin>(stream: &mut S, said: &mut Vec<u8>) -> io::Result<Speaks> {
    loop {
        match speaks(said) {
            Speaks::Unknown => {
                if stream.read_buf(said).await? == 0 {
                    return Ok(Speaks::Unknown);
                }
            }
            known @ (Speaks::Http1 | Speaks::Http2) => return Ok(known),
        }
    }
}

fn speaks(said: &[u8]) -> Speaks {
    if said.starts_with(PREFACE) {
        Speaks::Http2
    } else if PREFACE.starts_with(said) {
        Speaks::Unknown
    } else {
        Speaks::Http1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_differs_tells() {
        let cases: [(&[u8], Speaks); 6] = [
            (b"", Speaks::Unknown),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n", Speaks::Unknown),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Speaks::Http2),
            (b"G", Speaks::Http1),
            (b"PRI * HTTP/1", Speaks::Http1),
            (b"\x16\x03\x01", Speaks::Http1),
        ];
        for (said, expected) in cases {
            assert_eq!(speaks(said), expected, "{}", said.escape_ascii());
        }
    }

    #[tokio::test]
    async fn nothing_that_was_said_is_lost() {
        let (mut client, mut server) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut client, b"POST /v2").await.unwrap();
        let mut said = Vec::new();
        assert_eq!(listen(&mut server, &mut said).await.unwrap(), Speaks::Http1);
        assert!(b"POST /v2".starts_with(&said) && !said.is_empty());
    }
}
