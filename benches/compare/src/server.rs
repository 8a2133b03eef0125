//! The load server: a process of its own that writes frames which were assembled before.
//!
//! It must never be what limits a client: it copies memory to a socket and does nothing else while
//! it is measured. The contender `sink`, which only reads bytes, shows how fast that is. A watchdog
//! ends it whatever happens.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use crate::{
    feed::Frame,
    job::{Job, Notice, Ports, Result, Task},
    measure::monotonic,
    wire,
};

/// Serves one client, and ends when that one has gone.
pub(crate) fn serve(job: &Job) -> Result<()> {
    crate::process::end_after(crate::process::DEADLINE);
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ports =
        Ports { socket: socket.local_addr()?.port(), control: control.local_addr()?.port() };
    println!("{}", serde_json::to_string(&ports)?);

    let mut control = Control { lines: BufReader::new(control.accept()?.0) };
    let mut peer = Peer::accept(&socket)?;
    let mut frames = Vec::with_capacity(job.subscriptions);
    while frames.len() < job.subscriptions {
        frames.push(Frame::new(&peer.next_subscribe()?, job.shape));
        if frames.len() == 1 && job.task == Task::Idle {
            control.say(&Notice::First)?;
        }
    }
    let round: u64 = frames.iter().map(|frame| frame.bytes.len() as u64).sum();
    control.say(&Notice::Subscribed { bytes: job.phases().map(|events| events * round) })?;

    match job.task {
        Task::Blast { warm_up, events } => {
            let mut blast = Blast::new(&frames, warm_up.max(events));
            drop(frames);
            blast.write(&mut peer.stream, warm_up)?;
            control.await_go()?;
            blast.write(&mut peer.stream, events)?;
        }
        Task::Pace { burst, every_micros, bursts } => {
            Blast::new(&frames, 1).write(&mut peer.stream, 1)?;
            control.await_go()?;
            pace(
                &mut peer.stream,
                &mut frames,
                burst,
                Duration::from_micros(every_micros),
                bursts,
            )?;
        }
        Task::Idle => {
            control.await_go()?;
            Blast::new(&frames, 1).write(&mut peer.stream, 1)?;
        }
        Task::Reissue { rounds } => {
            for _ in 0..rounds {
                control.await_go()?;
                drop(peer);
                peer = Peer::accept(&socket)?;
                let start = Instant::now();
                let bytes = peer.count_subscribes(job.subscriptions)?;
                let nanos = u64::try_from(start.elapsed().as_nanos())?;
                control.say(&Notice::Reissued { nanos, bytes })?;
            }
        }
    }
    // Until the client has gone.
    let _ = control.await_go();
    Ok(())
}

/// All frames in turn, as one piece of memory.
struct Blast {
    bytes: Vec<u8>,
    /// How often every subscription is in there.
    rounds: u64,
}

impl Blast {
    fn new(frames: &[Frame], most: u64) -> Self {
        let mut round = Vec::new();
        for frame in frames {
            round.extend_from_slice(&frame.bytes);
        }
        let rounds = (MEMORY / round.len().max(1) as u64).clamp(1, most.max(1));
        let bytes = round.repeat(usize::try_from(rounds).unwrap_or(1));
        Self { bytes, rounds }
    }

    fn write(&mut self, stream: &mut TcpStream, mut rounds: u64) -> Result<()> {
        let round = self.bytes.len() / usize::try_from(self.rounds)?;
        while rounds > 0 {
            let now = rounds.min(self.rounds);
            for chunk in self.bytes[..round * usize::try_from(now)?].chunks(CHUNK) {
                stream.write_all(chunk)?;
            }
            rounds -= now;
        }
        Ok(())
    }
}

/// A burst is stamped when it is due and written at once; that this process woke late counts for
/// nobody.
fn pace(
    stream: &mut TcpStream,
    frames: &mut [Frame],
    burst: usize,
    every: Duration,
    bursts: u64,
) -> Result<()> {
    let mut due = Instant::now();
    let (mut at, mut bytes) = (0, Vec::new());
    for _ in 0..bursts {
        due += every;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = monotonic();
        bytes.clear();
        for _ in 0..burst {
            frames[at].stamp(now);
            bytes.extend_from_slice(&frames[at].bytes);
            at = (at + 1) % frames.len();
        }
        stream.write_all(&bytes)?;
    }
    Ok(())
}

struct Control {
    lines: BufReader<TcpStream>,
}

impl Control {
    fn say(&mut self, notice: &Notice) -> Result<()> {
        let mut line = serde_json::to_string(notice)?;
        line.push('\n');
        Ok(self.lines.get_mut().write_all(line.as_bytes())?)
    }

    fn await_go(&mut self) -> Result<()> {
        let mut line = String::new();
        match self.lines.read_line(&mut line)? {
            0 => Err("the client has gone".into()),
            _ => Ok(()),
        }
    }
}

/// The client's end of the WebSocket.
struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What of the buffer was read and not yet looked at.
    unread: std::ops::Range<usize>,
    bytes_in: u64,
}

impl Peer {
    /// Up to and including the acknowledgement.
    fn accept(listener: &TcpListener) -> Result<Self> {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut peer = Self { stream, buffer: vec![0; BUFFER], unread: 0..0, bytes_in: 0 };
        let answer = loop {
            peer.fill()?;
            if let Some((answer, len)) = wire::upgrade(&peer.buffer[peer.unread.clone()])? {
                peer.unread.start += len;
                break answer;
            }
        };
        peer.stream.write_all(answer.as_bytes())?;
        while !wire::is("connection_init", &peer.frame(wire::HEAD)?) {}
        peer.stream.write_all(&wire::ack())?;
        peer.bytes_in = 0;
        Ok(peer)
    }

    /// The id of the next operation.
    fn next_subscribe(&mut self) -> Result<String> {
        loop {
            let message = self.frame(usize::MAX)?;
            if wire::is("subscribe", &message) {
                return wire::id(&message);
            }
        }
    }

    /// Reads so many and returns what they weigh.
    fn count_subscribes(&mut self, mut left: usize) -> Result<u64> {
        while left > 0 {
            if wire::is("subscribe", &self.frame(wire::HEAD)?) {
                left -= 1;
            }
        }
        Ok(self.bytes_in)
    }

    /// The beginning of the next frame's payload, of at most that length.
    fn frame(&mut self, most: usize) -> Result<Vec<u8>> {
        loop {
            if let Some((payload, len)) =
                wire::first_frame(&self.buffer[self.unread.clone()], most)?
            {
                self.bytes_in += len as u64;
                self.unread.start += len;
                return Ok(payload);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<()> {
        if self.unread.end == self.buffer.len() {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        match self.stream.read(&mut self.buffer[self.unread.end..])? {
            0 => Err("the client has gone".into()),
            read => {
                self.unread.end += read;
                Ok(())
            }
        }
    }
}

/// Frames are repeated up to about so many bytes: more than one write, less than a cache.
const MEMORY: u64 = 1 << 20;

/// Bytes of one write.
const CHUNK: usize = 256 * 1024;

/// Bytes of one read; longer than any message.
const BUFFER: usize = 1 << 20;
