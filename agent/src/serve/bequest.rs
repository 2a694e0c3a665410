//! What an ending gateway leaves to the next one: its open connections, each between two requests.
//!
//! A pair of connected sockets, which whoever starts gateways holds too: the supervisor, or systemd in its store of file
//! descriptors. The ending gateway sends a connection into one end as soon as no request is under way on it. There it
//! lies in the kernel, open, until the next gateway takes it out of the other end. Its client sees nothing of this; what
//! the client sends meanwhile waits in the connection. So an idle connection is never closed under a client that is about
//! to use it, and a release that fails to start costs no connection: the gateway that starts after it takes them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};

/// Most bytes of a request's beginning that travel with its connection.
pub const UNREAD_BYTES_MAX: usize = 16 * 1024;
/// A message is one byte for the kind, then what was read and is not used yet.
const KIND_BYTES: usize = 1;

/// Both ends.
#[derive(Debug)]
pub struct Bequest {
    leave: OwnedFd,
    take: OwnedFd,
}

/// By which listener a connection came: it says who may ask on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP: with a token.
    Tcp,
    /// The Unix socket: by its permissions.
    Unix,
}

/// A connection that was left.
#[derive(Debug)]
pub struct Left {
    /// By which listener it came.
    pub kind: Kind,
    /// The connection.
    pub connection: OwnedFd,
    /// Bytes that were read from it and belong to its next request.
    pub unread: Vec<u8>,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Tcp => b't',
            Self::Unix => b'u',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Tcp, Self::Unix].into_iter().find(|kind| kind.byte() == byte)
    }
}

impl Bequest {
    /// A new pair with nothing in it.
    ///
    /// # Errors
    /// The kernel has no room for it.
    pub fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (leave, take) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok(Self { leave, take })
    }

    /// The pair of the ends `leave` and `take`.
    pub const fn of(leave: OwnedFd, take: OwnedFd) -> Self {
        Self { leave, take }
    }

    /// The end that is sent into, and the one that is taken from.
    pub fn ends(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.leave.as_fd(), self.take.as_fd())
    }

    /// Leaves a copy of `connection`, with what was read from it and is not used yet. The caller closes its own.
    ///
    /// # Errors
    /// There is no room: as many wait as the kernel holds, or `unread` is longer than [`UNREAD_BYTES_MAX`].
    pub fn leave(&self, kind: Kind, connection: BorrowedFd<'_>, unread: &[u8]) -> io::Result<()> {
        if unread.len() > UNREAD_BYTES_MAX {
            return Err(io::Error::other("a request was begun that is too long to travel"));
        }
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let connections = [connection];
        if !control.push(SendAncillaryMessage::ScmRights(&connections)) {
            return Err(io::Error::other("no room for a file descriptor"));
        }
        let kind = [kind.byte()];
        let parts = [IoSlice::new(&kind), IoSlice::new(unread)];
        sendmsg(&self.leave, &parts, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The connection that was left first; none when there is no more.
    ///
    /// # Errors
    /// The kernel refuses, or what was left is no connection.
    pub fn take(&self) -> io::Result<Option<Left>> {
        let mut bytes = vec![0; KIND_BYTES + UNREAD_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = match recvmsg(&self.take, &mut parts, &mut control, flags) {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Ok(None),
            Err(reason) => return Err(reason.into()),
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut connections = control.drain().filter_map(|message| {
            let RecvAncillaryMessage::ScmRights(mut connections) = message else { return None };
            connections.next()
        });
        let connection = connections.next();
        drop(connections);
        bytes.truncate(received.bytes);
        match (bytes.first().copied().and_then(Kind::of), connection) {
            (Some(kind), Some(connection)) => {
                Ok(Some(Left { kind, connection, unread: bytes.split_off(KIND_BYTES) }))
            }
            (Some(_) | None, _) => Err(io::Error::other("what was left is no connection")),
        }
    }

    /// All that was left.
    pub fn take_all(&self) -> Vec<Left> {
        let mut all = Vec::new();
        loop {
            match self.take() {
                Ok(Some(left)) => all.push(left),
                Ok(None) => return all,
                Err(reason) => {
                    tracing::warn!(%reason, "a connection that was left is lost");
                    return all;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    use super::*;

    #[test]
    fn what_is_left_is_taken_whole_and_in_order() {
        let bequest = Bequest::new().unwrap();
        assert!(bequest.take().unwrap().is_none());
        let (mut client, server) = UnixStream::pair().unwrap();
        bequest.leave(Kind::Unix, server.as_fd(), b"POST /v1").unwrap();
        drop(server);
        // Sent while nobody holds the other end.
        client.write_all(b"/ask").unwrap();
        let (_other, second) = UnixStream::pair().unwrap();
        bequest.leave(Kind::Tcp, second.as_fd(), b"").unwrap();

        let all = bequest.take_all();
        let kinds: Vec<Kind> = all.iter().map(|left| left.kind).collect();
        assert_eq!(kinds, [Kind::Unix, Kind::Tcp]);
        let mut all = all.into_iter();
        let first = all.next().unwrap();
        assert_eq!(first.unread, b"POST /v1");
        let mut server = UnixStream::from(first.connection);
        let mut sent = [0; 4];
        server.read_exact(&mut sent).unwrap();
        assert_eq!(&sent, b"/ask");
        server.write_all(b"200").unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "200");
    }

    #[test]
    fn a_full_bequest_is_said_and_loses_nothing() {
        let bequest = Bequest::new().unwrap();
        let (_client, server) = UnixStream::pair().unwrap();
        let long = vec![0; UNREAD_BYTES_MAX + 1];
        assert!(bequest.leave(Kind::Unix, server.as_fd(), &long).is_err());
        let full = vec![7; UNREAD_BYTES_MAX];
        let mut left = 0;
        while bequest.leave(Kind::Unix, server.as_fd(), &full).is_ok() {
            left += 1;
        }
        assert!(left > 0);
        let all = bequest.take_all();
        assert_eq!(all.len(), left);
        assert!(all.iter().all(|one| one.unread == full));
    }
}
