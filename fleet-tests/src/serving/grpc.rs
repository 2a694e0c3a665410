//! One connection that speaks as much of HTTP/2 (RFC 9113) as one unary gRPC call after the other needs, and reads no
//! more of an answer than it must: what a load generator does costs the same processor as the server.
//!
//! Headers of answers are not read: a call that failed has no message, and that alone tells.

use std::io::{self, Read as _, Write as _};

use crate::serving::wire::{Address, Stream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_BYTES: usize = 9;
/// Largest frame that either side may send without being told that it may.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// Bytes that either side may send at first.
const WINDOW_FIRST: i64 = 65_535;
/// Bytes that the server may send.
const WINDOW: u32 = 0x7fff_ffff;
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Of DATA and HEADERS: the last frame of its side.
const END_STREAM: u8 = 1;
/// Of SETTINGS and PING: an answer to one.
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// An open connection for one method.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// The header block of every call.
    headers: Vec<u8>,
    /// What was read and not used.
    read: Vec<u8>,
    /// Frames on their way out.
    out: Vec<u8>,
    message: Vec<u8>,
    next_stream: u32,
    /// Bytes that we may send on the connection.
    window: i64,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    length: usize,
}

impl Connection {
    /// Connects and says what we take.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn open(address: &Address, path: &str, token: Option<&str>) -> io::Result<Self> {
        let mut stream = Stream::open(address)?;
        let mut out = PREFACE.to_vec();
        // No table of headers, no pushes, and as much of a stream as can be.
        let settings: [(u16, u32); 3] = [(1, 0), (2, 0), (4, WINDOW)];
        begin(&mut out, SETTINGS, 0, 0, settings.len() * 6);
        for (key, value) in settings {
            out.extend(key.to_be_bytes());
            out.extend(value.to_be_bytes());
        }
        begin(&mut out, WINDOW_UPDATE, 0, 0, 4);
        out.extend((WINDOW - 65_535).to_be_bytes());
        stream.write_all(&out)?;
        Ok(Self {
            stream,
            headers: header_block(path, token),
            read: Vec::new(),
            out: Vec::new(),
            message: Vec::new(),
            next_stream: 1,
            window: WINDOW_FIRST,
        })
    }

    /// Makes one call with `message`: the message of the answer, or none where the call failed.
    ///
    /// # Errors
    /// The connection broke, or the server ends it.
    pub fn ask(&mut self, message: &[u8]) -> io::Result<Option<&[u8]>> {
        let length = message.len() + 5;
        if length > FRAME_BYTES_MAX {
            return Err(broken("the message does not fit into a frame"));
        }
        while self.window < length as i64 {
            self.take(0)?;
        }
        let stream = self.next_stream;
        self.next_stream += 2;
        self.window -= length as i64;
        begin(&mut self.out, HEADERS, END_HEADERS, stream, self.headers.len());
        self.out.extend(&self.headers);
        begin(&mut self.out, DATA, END_STREAM, stream, length);
        self.out.push(0);
        self.out.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.out.extend(message);
        self.message.clear();
        while !self.take(stream)? {}
        Ok(self.message.get(5..))
    }

    /// Reads one frame, and says whether it was the last of `stream`.
    fn take(&mut self, stream: u32) -> io::Result<bool> {
        self.flush()?;
        self.fill(FRAME_HEAD_BYTES)?;
        let frame = parsed(&self.read).ok_or_else(|| broken("no head of a frame"))?;
        if frame.length > FRAME_BYTES_MAX {
            return Err(broken("a frame that is too long"));
        }
        let end = FRAME_HEAD_BYTES + frame.length;
        self.fill(end)?;
        let over = self.understand(&frame, stream)?;
        self.read.drain(..end);
        Ok(over)
    }

    fn understand(&mut self, frame: &Frame, stream: u32) -> io::Result<bool> {
        let content = self.read.get(FRAME_HEAD_BYTES..FRAME_HEAD_BYTES + frame.length);
        let content = content.unwrap_or_default();
        let ours = frame.stream == stream && stream != 0;
        match frame.kind {
            DATA if ours => {
                if frame.flags & PADDED != 0 {
                    return Err(broken("padding, which no server of ours sends"));
                }
                if self.message.len() + content.len() > MESSAGE_BYTES_MAX {
                    return Err(broken("an answer that is too long"));
                }
                self.message.extend(content);
                Ok(frame.flags & END_STREAM != 0)
            }
            HEADERS if ours => Ok(frame.flags & END_STREAM != 0),
            RST_STREAM if ours => Err(broken("the server took the call back")),
            GOAWAY => Err(broken("the server ends the connection")),
            SETTINGS if frame.flags & ACK == 0 => {
                begin(&mut self.out, SETTINGS, ACK, 0, 0);
                Ok(false)
            }
            PING if frame.flags & ACK == 0 => {
                begin(&mut self.out, PING, ACK, 0, content.len());
                self.out.extend(content);
                Ok(false)
            }
            WINDOW_UPDATE if frame.stream == 0 => {
                let more = content.first_chunk::<4>().map_or(0, |four| u32::from_be_bytes(*four));
                self.window += i64::from(more & 0x7fff_ffff);
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Reads until there are `wanted` bytes.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        while self.read.len() < wanted {
            let count = self.stream.read(&mut piece)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read.extend_from_slice(piece.get(..count).unwrap_or_default());
        }
        Ok(())
    }
}

fn begin(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, length: usize) {
    let [_, a, b, c] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    out.extend([a, b, c, kind, flags]);
    out.extend(stream.to_be_bytes());
}

fn parsed(bytes: &[u8]) -> Option<Frame> {
    let [a, b, c, kind, flags, stream @ ..] = *bytes.first_chunk::<FRAME_HEAD_BYTES>()?;
    Some(Frame {
        kind,
        flags,
        stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        length: u32::from_be_bytes([0, a, b, c]) as usize,
    })
}

/// Headers that no table needs to remember (RFC 7541 §6.2.2): names by their number in the static table or written out,
/// values written out without Huffman's code.
fn header_block(path: &str, token: Option<&str>) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` stand in the static table.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(1, "localhost"), (4, path), (31, "application/grpc")] {
        named(&mut block, name, value);
    }
    if let Some(token) = token {
        named(&mut block, 23, &format!("Bearer {token}"));
    }
    block.push(0);
    string(&mut block, "te");
    string(&mut block, "trailers");
    block
}

fn named(block: &mut Vec<u8>, name: usize, value: &str) {
    number(block, 0x0f, name);
    string(block, value);
}

fn string(block: &mut Vec<u8>, text: &str) {
    number(block, 0x7f, text.len());
    block.extend(text.as_bytes());
}

/// An integer that begins in the low bits of a byte, of which `most` are there (RFC 7541 §5.1).
fn number(block: &mut Vec<u8>, most: u8, number: usize) {
    let Some(mut rest) = number.checked_sub(usize::from(most)) else {
        block.push(u8::try_from(number).unwrap_or(most));
        return;
    };
    block.push(most);
    while rest >= 128 {
        block.push(0x80 | (rest % 128) as u8);
        rest /= 128;
    }
    block.push(rest as u8);
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn integers_are_those_of_the_specification() {
        let of = |most, value| {
            let mut block = Vec::new();
            number(&mut block, most, value);
            block
        };
        // RFC 7541, C.1.
        assert_eq!(of(0x1f, 10), [10]);
        assert_eq!(of(0x1f, 1337), [31, 154, 10]);
        assert_eq!(of(0xff, 42), [42]);
        assert_eq!(of(0x0f, 15), [15, 0]);
    }

    /// What a client makes of the frames that a server sends after its request.
    fn asked(answer: Vec<&'static [u8]>) -> io::Result<Option<Vec<u8>>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut said = Vec::new();
            let mut piece = [0; 1024];
            while !said.ends_with(b"\0\0\0\0\x02hi") {
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0, "the request ended early: {said:?}");
                said.extend(&piece[..count]);
            }
            assert!(said.starts_with(PREFACE));
            answer.iter().for_each(|piece| stream.write_all(piece).unwrap());
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            while stream.read(&mut piece).is_ok_and(|count| count > 0) {}
        });
        let mut connection = Connection::open(&address, "/a/b", Some("t")).unwrap();
        let answered = connection.ask(b"hi").map(|message| message.map(<[u8]>::to_vec));
        drop(connection);
        server.join().unwrap();
        answered
    }

    const SETTINGS_FRAME: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const HEAD: &[u8] = &[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];
    const TRAILERS: &[u8] = &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];

    #[test]
    fn a_message_comes_in_frames_between_others() {
        let first: &[u8] = &[0, 0, 6, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 3, b'a'];
        let second: &[u8] = &[0, 0, 2, 0, 0, 0, 0, 0, 1, b'b', b'c'];
        let ping: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let read = asked(vec![SETTINGS_FRAME, HEAD, first, ping, second, TRAILERS]);
        assert_eq!(read.unwrap(), Some(b"abc".to_vec()));
    }

    #[test]
    fn a_call_that_failed_has_no_message_and_one_taken_back_is_an_error() {
        assert_eq!(asked(vec![SETTINGS_FRAME, TRAILERS]).unwrap(), None);
        let reset: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
        assert!(asked(vec![SETTINGS_FRAME, reset]).is_err());
        assert!(asked(vec![SETTINGS_FRAME, HEAD]).is_err());
    }
}
