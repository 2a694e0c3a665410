//! An HTTPS artifact server that misbehaves on request. It speaks HTTP/1.1 byte by byte, so that nothing is too wrong for
//! it to say.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Largest request that is read.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Most that an endless answer sends, so that a client that reads on for ever is found out by what it took.
const ENDLESS_BYTES_MAX: u64 = 512 << 20;
/// Between two bytes of a slow answer.
const DRIBBLE_EVERY: Duration = Duration::from_millis(20);
/// How long one side waits for the other.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a file is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It never ends.
    Endless,
    /// It never ends, and says its length is right.
    EndlessBehindLength,
    /// The header never ends.
    EndlessHeader,
    /// A byte now and then, for ever.
    Dribble,
    /// So many bytes, then silence.
    Silent(usize),
    /// So many bytes, then the end, whatever length was said.
    Short(usize),
    /// One byte more than there is.
    Longer,
    /// One bit of it is another.
    Altered,
    /// Says that it is compressed, and that it is small.
    Compressed,
    /// Another part of the file than was asked for.
    OtherRange,
    /// Go there.
    Redirect(String),
    /// This status and nothing else.
    Status(u16),
    /// Not HTTP.
    Noise,
}

/// What the server has.
#[derive(Debug, Default)]
pub struct Shelf {
    /// By path below `/artifacts/`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// How some of them are served.
    pub faults: BTreeMap<String, Fault>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

struct Serving {
    shelf: Arc<Mutex<Shelf>>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tls: Arc<ServerConfig>,
}

impl Server {
    /// Serves on loopback.
    pub fn start(tls: Arc<ServerConfig>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (shelf, sent, stop) = (Arc::default(), Arc::default(), Arc::default());
        let serving = Arc::new(Serving {
            shelf: Arc::clone(&shelf),
            sent: Arc::clone(&sent),
            stop: Arc::clone(&stop),
            tls,
        });
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.stop.load(Ordering::Relaxed) {
                    return;
                }
                let serving = Arc::clone(&serving);
                // A client that hangs up is what is wanted of it.
                thread::spawn(move || drop(serving.serve(stream)));
            }
        });
        Ok(Self { address, shelf, sent, stop, listener: Some(thread) })
    }

    /// Its address for devices.
    pub fn artifacts(&self) -> String {
        format!("https://localhost:{}/artifacts", self.address.port())
    }

    /// What it has.
    pub fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of bodies that it got rid of.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
        if let Some(listener) = self.listener.take() {
            drop(listener.join());
        }
    }
}

impl Serving {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let connection = ServerConnection::new(Arc::clone(&self.tls)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        let request = head(&mut stream)?;
        let path = request.split_whitespace().nth(1).unwrap_or_default();
        let path = path.trim_start_matches("/artifacts/").to_owned();
        let from = range(&request);
        let (file, fault) = {
            let shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
            (shelf.files.get(&path).cloned(), shelf.faults.get(&path).cloned())
        };
        match (file, fault) {
            (None, _) => self.say(&mut stream, "404 Not Found", "", &[]),
            (Some(file), None) => self.whole(&mut stream, &file, from),
            (Some(file), Some(fault)) => self.wrong(&mut stream, file, &fault, from),
        }?;
        stream.conn.send_close_notify();
        stream.flush()
    }

    fn whole(&self, out: &mut impl Write, file: &[u8], from: usize) -> io::Result<()> {
        match file.get(from..) {
            Some(rest) if from > 0 => {
                let (last, length) = (file.len() - 1, file.len());
                let range = format!("content-range: bytes {from}-{last}/{length}\r\n");
                self.say(out, "206 Partial Content", &range, rest)
            }
            Some(_) | None => self.say(out, "200 OK", "", file),
        }
    }

    fn wrong(
        &self,
        out: &mut (impl Read + Write),
        mut file: Vec<u8>,
        fault: &Fault,
        from: usize,
    ) -> io::Result<()> {
        match fault {
            Fault::Endless => {
                out.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                self.endless(out)
            }
            Fault::EndlessBehindLength => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", file.len());
                out.write_all(head.as_bytes())?;
                out.write_all(&file)?;
                self.endless(out)
            }
            Fault::EndlessHeader => {
                out.write_all(b"HTTP/1.1 200 OK\r\nx-padding: ")?;
                self.endless(out)
            }
            Fault::Dribble => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", file.len());
                out.write_all(head.as_bytes())?;
                self.dribble(out, &file)
            }
            Fault::Silent(bytes) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", file.len());
                out.write_all(head.as_bytes())?;
                out.write_all(file.get(..*bytes).unwrap_or(&file))?;
                out.flush()?;
                // Until the client has had enough.
                out.read(&mut [0]).map(drop)
            }
            Fault::Short(bytes) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", file.len());
                out.write_all(head.as_bytes())?;
                out.write_all(file.get(..*bytes).unwrap_or(&file))
            }
            Fault::Longer => {
                file.push(0);
                self.say(out, "200 OK", "", &file)
            }
            Fault::Altered => {
                let at = file.len() / 2;
                file[at] ^= 1;
                self.whole(out, &file, from)
            }
            Fault::Compressed => {
                let head = "content-encoding: gzip\r\n";
                self.say(out, "200 OK", head, &file)
            }
            Fault::OtherRange => {
                let (last, length) = (file.len() - 1, file.len());
                let range = format!("content-range: bytes 1-{last}/{length}\r\n");
                self.say(out, "206 Partial Content", &range, file.get(1..).unwrap_or_default())
            }
            Fault::Redirect(to) => self.say(out, "302 Found", &format!("location: {to}\r\n"), &[]),
            Fault::Status(status) => self.say(out, &format!("{status} No"), "", &[]),
            Fault::Noise => out.write_all(&[0xff; 4096]),
        }
    }

    fn say(&self, out: &mut impl Write, status: &str, more: &str, body: &[u8]) -> io::Result<()> {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n"
        );
        out.write_all(head.as_bytes())?;
        out.write_all(body)?;
        self.sent.fetch_add(length as u64, Ordering::Relaxed);
        Ok(())
    }

    fn endless(&self, out: &mut impl Write) -> io::Result<()> {
        let piece = [b'x'; 64 * 1024];
        let mut sent = 0;
        while sent < ENDLESS_BYTES_MAX && !self.stop.load(Ordering::Relaxed) {
            out.write_all(&piece)?;
            sent += piece.len() as u64;
            self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn dribble(&self, out: &mut impl Write, file: &[u8]) -> io::Result<()> {
        let (_stay, pace) = mpsc::sync_channel::<()>(1);
        for byte in file {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            out.write_all(&[*byte])?;
            out.flush()?;
            match pace.recv_timeout(DRIBBLE_EVERY) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }
}

/// The request line and headers.
fn head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= REQUEST_BYTES_MAX || stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// The first byte that is asked for.
fn range(head: &str) -> usize {
    let line = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("range").then(|| value.trim().to_owned())
    });
    line.and_then(|value| value.strip_prefix("bytes=")?.split('-').next()?.parse().ok())
        .unwrap_or(0)
}
