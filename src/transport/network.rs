//! Changes of this machine's network, as the operating system reports them.

#[cfg(any(target_os = "macos", target_os = "ios", target_os = "windows"))]
mod addresses;
#[cfg(target_os = "linux")]
mod netlink;

use std::io;

use futures::stream::BoxStream;

#[cfg(any(target_os = "macos", target_os = "ios", target_os = "windows"))]
pub(crate) use self::addresses::open;
#[cfg(target_os = "linux")]
pub(crate) use self::netlink::open;

/// Systems without notifications. To poll them would wake every client for nothing.
#[cfg(not(any(
    target_os = "linux",
    target_os = "macos",
    target_os = "ios",
    target_os = "windows"
)))]
pub(crate) fn open() -> io::Result<Changes> {
    Err(io::ErrorKind::Unsupported.into())
}

/// One or more items for each change that may affect a connection to another machine. The state at
/// the start yields no item.
pub(crate) type Changes = BoxStream<'static, io::Result<()>>;
