//! Which subprotocol to offer (rule 1): one at a time, since offering both is a trap.

use std::sync::Arc;

use crate::{error::Disconnect, protocol::Subprotocol};

#[derive(Debug)]
pub(super) struct Negotiation {
    fixed: Option<Subprotocol>,
    /// What the server acknowledged before.
    proven: Option<Subprotocol>,
    /// What came back when the modern one was offered; the legacy one is on trial.
    modern_refused: Option<Disconnect>,
}

impl Negotiation {
    pub(super) fn new(fixed: Option<Subprotocol>) -> Self {
        Self { fixed, proven: None, modern_refused: None }
    }

    /// The one to offer next.
    pub(super) fn offer(&self) -> Subprotocol {
        self.fixed.or(self.proven).unwrap_or(match self.modern_refused {
            Some(_) => Subprotocol::GraphqlWs,
            None => Subprotocol::GraphqlTransportWs,
        })
    }

    /// Whether a refused subprotocol leaves something to try, or at least something to say about
    /// both.
    pub(super) fn is_open(&self) -> bool {
        self.fixed.is_none() && self.proven.is_none()
    }

    /// The server did not take the offer: `Ok` to try the other one, `Err` when both were refused.
    pub(super) fn refused(&mut self, cause: Disconnect) -> Result<(), Disconnect> {
        match self.modern_refused.take() {
            None => {
                self.modern_refused = Some(cause);
                Ok(())
            }
            Some(modern) => {
                Err(Disconnect::NoSubprotocol { modern: Arc::new(modern), legacy: Arc::new(cause) })
            }
        }
    }

    /// The server acknowledged.
    pub(super) fn acked(&mut self, subprotocol: Subprotocol) {
        self.proven = Some(subprotocol);
        self.modern_refused = None;
    }

    /// Back to the modern one: a rejected credential may look like a refused subprotocol.
    pub(super) fn retry_from_the_start(&mut self) {
        self.modern_refused = None;
    }

    /// The end of an attempt for good: the next one knows nothing.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.fixed);
    }
}
