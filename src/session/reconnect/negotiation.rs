//! Which subprotocol to offer (rule 1): one at a time, as offering both confuses servers.

use std::sync::Arc;

use super::verdicts::Offer;
use crate::{error::Disconnect, protocol::Subprotocol};

#[derive(Debug)]
pub(crate) struct Negotiation {
    fixed: Option<Subprotocol>,
    /// What the server has acknowledged last.
    proven: Option<Subprotocol>,
    /// The subprotocol that was refused first in this round, and how. The other one is offered now.
    refused: Option<(Subprotocol, Disconnect)>,
}

impl Negotiation {
    pub(crate) fn new(fixed: Option<Subprotocol>) -> Self {
        Self { fixed, proven: None, refused: None }
    }

    /// The one to offer next.
    pub(crate) fn next(&self) -> Subprotocol {
        match (self.fixed, &self.refused) {
            (Some(fixed), _) => fixed,
            (None, Some((refused, _))) => other(*refused),
            (None, None) => self.proven.unwrap_or(Subprotocol::GraphqlTransportWs),
        }
    }

    pub(super) fn offer(&self) -> Offer {
        match (self.fixed, self.proven) {
            (Some(_), _) => Offer::Fixed,
            (None, Some(_)) => Offer::Proven,
            (None, None) => Offer::Open,
        }
    }

    /// The server did not take the offer.
    ///
    /// # Errors
    ///
    /// If it has refused both. The next round begins with the one that has worked before.
    pub(super) fn refused(&mut self, cause: Disconnect) -> Result<(), Disconnect> {
        match self.refused.take() {
            None => {
                self.refused = Some((self.next(), cause));
                Ok(())
            }
            Some((first, first_cause)) => {
                let (first_cause, cause) = (Arc::new(first_cause), Arc::new(cause));
                Err(match first {
                    Subprotocol::GraphqlTransportWs => {
                        Disconnect::NoSubprotocol { modern: first_cause, legacy: cause }
                    }
                    Subprotocol::GraphqlWs => {
                        Disconnect::NoSubprotocol { modern: cause, legacy: first_cause }
                    }
                })
            }
        }
    }

    /// The next attempt offers the other subprotocol, though nothing says for certain that this one
    /// was refused.
    pub(super) fn try_the_other(&mut self) {
        if let Some(proven) = self.proven {
            self.proven = Some(other(proven));
        }
    }

    /// The server acknowledged.
    pub(crate) fn acked(&mut self, subprotocol: Subprotocol) {
        self.proven = Some(subprotocol);
        self.refused = None;
    }

    /// Everything was ended. The next attempt starts with the one that has worked before, if any.
    pub(super) fn reset(&mut self) {
        self.refused = None;
    }
}

fn other(subprotocol: Subprotocol) -> Subprotocol {
    match subprotocol {
        Subprotocol::GraphqlTransportWs => Subprotocol::GraphqlWs,
        Subprotocol::GraphqlWs => Subprotocol::GraphqlTransportWs,
    }
}
