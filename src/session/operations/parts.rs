//! What has come of the result of a query or mutation that the server delivers in parts (`@defer`,
//! `@stream`). They are merged only when the last one is there, in the caller's task.

use crate::protocol::Payload;

#[derive(Debug, Default)]
pub(in crate::session) struct Parts {
    payloads: Vec<Payload>,
    bytes: usize,
}

impl Parts {
    /// Adds a part. Returns whether all of them together are within a limit, in bytes.
    pub(in crate::session) fn add(&mut self, part: Payload, limit: usize) -> bool {
        self.bytes += part.frame().len() + size_of::<Payload>();
        let fits = self.bytes <= limit;
        if fits {
            self.payloads.push(part);
        }
        fits
    }

    pub(in crate::session) fn into_payloads(self) -> Vec<Payload> {
        self.payloads
    }
}
