//! resub
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "client"), allow(dead_code, reason = "who uses the pure core is behind `client`"))]

mod auth;
#[cfg(feature = "client")]
mod builder;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod dial;
#[cfg(feature = "client")]
mod driver;
mod error;
mod mailbox;
#[cfg(feature = "mock")]
pub mod mock;
mod operation;
mod protocol;
mod response;
mod session;
#[cfg(feature = "client")]
mod socket;
mod status;
#[cfg(feature = "client")]
mod subscription;
#[cfg(feature = "client")]
mod telemetry;

pub use auth::CredentialsReason;
#[cfg(feature = "_tls")]
pub use dial::TlsRoots;
#[cfg(feature = "graphql-client")]
pub use operation::Typed;
#[cfg(feature = "client")]
pub use {
    auth::Credentials,
    builder::ClientBuilder,
    client::Client,
    dial::{BoxedIo, DialFuture, Dialer, Io},
    error::BuildError,
    subscription::{Event, Subscription, SubscriptionBuilder},
};
pub use {
    error::{
        CloseCode, ConnectError, CredentialsError, DecodeError, DialError, Disconnect, SharedError, SubscribeError,
        SubscriptionError, Violation,
    },
    mailbox::{Gap, Overflow},
    operation::{Operation, Request},
    protocol::Subprotocol,
    response::{GraphQlError, Location, PathSegment, Response},
    session::Strictness,
    status::{Stats, Status},
};
