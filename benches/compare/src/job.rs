//! What the processes of one run tell each other: the job, the way to the server, and the report.

use serde::{Deserialize, Serialize};

use crate::feed::Shape;

/// Whatever went wrong, for a person to read.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// One run: the server and one client each get a copy.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) task: Task,
    pub(crate) subscriptions: usize,
    pub(crate) shape: Shape,
    /// Counting allocations costs a little, so times of such a run are not used.
    pub(crate) count_allocations: bool,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// As fast as the client reads; numbers are for each subscription. The warm-up is not measured.
    Blast { warm_up: u64, events: u64 },
    /// Bursts at a fixed pace, over all subscriptions in turn; each event says when it was sent.
    Pace { burst: usize, every_micros: u64, bursts: u64 },
    /// Subscribe, then wait; at last one event for each.
    Idle,
    /// So often: cut the connection, accept the next, and measure from the ack to the last
    /// subscribe.
    Reissue { rounds: u32 },
}

impl Job {
    /// How many events a subscription gets: in the warm-up, and measured.
    pub(crate) fn phases(&self) -> [u64; 2] {
        match self.task {
            Task::Blast { warm_up, events } => [warm_up, events],
            Task::Pace { burst, bursts, .. } => {
                [1, burst as u64 * bursts / self.subscriptions as u64]
            }
            Task::Idle => [1, 0],
            Task::Reissue { .. } => [0, 0],
        }
    }

    /// The same with allocations counted, after a warm-up that is as long as what is measured:
    /// until then, queues still grow to what they need, and each growth would count as if events
    /// went on to need it.
    pub(crate) fn counting_allocations(self) -> Self {
        let task = match self.task {
            Task::Blast { warm_up: _, events } => Task::Blast { warm_up: events, events },
            task @ (Task::Pace { .. } | Task::Idle | Task::Reissue { .. }) => task,
        };
        Self { task, count_allocations: true, ..self }
    }

    /// How many events are measured.
    pub(crate) fn events(&self) -> u64 {
        self.phases()[1] * self.subscriptions as u64
    }
}

/// The server's ports, both on the loopback.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) socket: u16,
    /// Lines: `go` to the server, [`Notice`]s from it.
    pub(crate) control: u16,
}

/// What the server tells the client, one JSON value on a line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Notice {
    /// The first subscribe was read (only for [`Task::Idle`]).
    First,
    /// Every subscribe was read; so many bytes of frames come in each phase.
    Subscribed { bytes: [u64; 2] },
    /// Every subscribe was read again, on a new connection.
    Reissued { nanos: u64, bytes: u64 },
}

/// What a client measured of itself. Sums over all events, where it is about events.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    pub(crate) cpu_nanos: u64,
    pub(crate) wall_nanos: u64,
    pub(crate) allocations: Option<u64>,
    /// p50, p99 and p99.9, in nanoseconds.
    pub(crate) latency: Option<[u64; 3]>,
    /// Growth of resident memory: when all were subscribed, and after each had one event.
    pub(crate) resident: Option<[u64; 2]>,
    pub(crate) reissues: Vec<Reissue>,
}

/// One reconnect.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Reissue {
    /// From the ack to the last subscribe, as the server saw it.
    pub(crate) nanos: u64,
    /// As the client spent it, from the loss on.
    pub(crate) cpu_nanos: u64,
    pub(crate) bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_counts_allocations_warms_up_as_long_as_it_measures() {
        let task = Task::Blast { warm_up: 2, events: 20 };
        let job = Job { task, subscriptions: 3, shape: Shape::One, count_allocations: false };
        let counted = job.counting_allocations();
        assert!(counted.count_allocations);
        assert_eq!((counted.phases(), counted.events()), ([20, 20], job.events()));
    }
}
