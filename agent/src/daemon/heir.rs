//! The pair by which open connections go from one gateway to the next: passed in, or, where the service manager keeps
//! file descriptors (`FileDescriptorStoreMax=2`), made once and kept there.

use std::{
    env,
    ffi::OsString,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::BorrowedFd,
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use rustix::{
    cmsg_space,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

use crate::{
    serve::bequest::Bequest,
    sockets::{BEQUEST_LEAVE, BEQUEST_TAKE, PassedSockets, SocketError},
};

/// By which systemd (254 and later) says how many file descriptors it keeps for this unit.
const STORE_VARIABLE: &str = "FDSTORE";
/// By which it says where it is told things.
const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";

/// The pair among `passed`, else one that the service manager agrees to keep; none when nobody would.
///
/// # Errors
/// What was passed is no such socket.
pub fn open(passed: &mut PassedSockets) -> Result<Option<Bequest>, SocketError> {
    let (leave, take) = (passed.packets(BEQUEST_LEAVE)?, passed.packets(BEQUEST_TAKE)?);
    if let (Some(leave), Some(take)) = (leave, take) {
        return Ok(Some(Bequest::of(leave, take)));
    }
    let keeps = env::var(STORE_VARIABLE).ok().and_then(|count| count.parse::<u32>().ok());
    if keeps.unwrap_or(0) < 2 {
        return Ok(None);
    }
    Ok(match Bequest::new().and_then(|bequest| keep(&bequest).map(|()| bequest)) {
        Ok(bequest) => Some(bequest),
        Err(reason) => {
            tracing::warn!(%reason, "open connections are not kept for the next gateway; they are closed at its start");
            None
        }
    })
}

fn keep(bequest: &Bequest) -> io::Result<()> {
    let socket = env::var_os(NOTIFY_VARIABLE)
        .ok_or_else(|| io::Error::other(format!("{NOTIFY_VARIABLE} is not set")))?;
    let (leave, take) = bequest.ends();
    store(&socket, BEQUEST_LEAVE, leave)?;
    store(&socket, BEQUEST_TAKE, take)
}

fn store(socket: &OsString, name: &str, end: BorrowedFd<'_>) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let manager = UnixDatagram::unbound()?;
    manager.connect_addr(&address)?;
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let ends = [end];
    if !control.push(SendAncillaryMessage::ScmRights(&ends)) {
        return Err(io::Error::other("no room for a file descriptor"));
    }
    let words = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n");
    sendmsg(&manager, &[IoSlice::new(words.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
