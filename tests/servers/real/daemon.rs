//! A program of somebody else's for as long as a test needs it. Knows none of them.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::net::{TcpSocket, TcpStream};

use crate::raw::within;

/// A directory for its files and a port for it to listen on, both of them nobody else's.
pub(crate) struct Place {
    dir: PathBuf,
    addr: SocketAddr,
    /// Bound and never listening: the program takes the port by `SO_REUSEADDR`, and nobody is given
    /// it while the program is down.
    _reservation: TcpSocket,
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        static PLACES: AtomicU32 = AtomicU32::new(0);
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        // Not below the target directory: a program that drops its rights may not get there.
        let dir = std::env::temp_dir().join(format!("resub-{name}-{}-{number}", process::id()));
        fs::create_dir(&dir).unwrap();
        let reservation = TcpSocket::new_v4().unwrap();
        reservation.set_reuseaddr(true).unwrap();
        reservation.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self { dir, addr: reservation.local_addr().unwrap(), _reservation: reservation }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.dir.join(name);
        fs::write(&file, text).unwrap();
        file
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read(self.dir.join(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays behind is in a directory for such files.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A program that runs, with all that it has started, until this is dropped.
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Returns once it accepts connections. What it prints is in the place's file [`PRINTED`].
    pub(crate) async fn start(command: &mut Command, place: &Place) -> Self {
        let printed =
            File::options().append(true).create(true).open(place.dir.join(PRINTED)).unwrap();
        command
            .current_dir(&place.dir)
            .stdin(Stdio::null())
            .stdout(printed.try_clone().unwrap())
            .stderr(printed);
        // A group of its own, so that the children of one that is killed go with it.
        let mut daemon = Self(command.process_group(0).spawn().expect("the program is installed"));
        // Of these programs none says when it is ready.
        let mut often = tokio::time::interval(Duration::from_millis(10));
        within(async {
            while TcpStream::connect(place.addr).await.is_err() {
                assert!(
                    daemon.0.try_wait().unwrap().is_none(),
                    "it ended: {}",
                    place.read(PRINTED)
                );
                often.tick().await;
            }
        })
        .await;
        daemon
    }

    /// At once, as when the machine dies, but that the kernel still closes its sockets.
    pub(crate) fn kill(mut self) {
        self.end().unwrap();
    }

    fn end(&mut self) -> io::Result<()> {
        let group = format!("-{}", self.0.id());
        Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.end();
    }
}

/// The file with what a program printed.
pub(crate) const PRINTED: &str = "printed";
