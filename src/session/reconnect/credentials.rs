//! Why the application is asked for credentials.

use crate::error::Disconnect;

/// Why the credentials provider is asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CredentialsReason {
    /// The first attempt of this client.
    Initial,
    /// A later attempt; what was returned last time may still be good.
    Reconnect,
    /// What was returned last expires soon, and the connection is replaced before that.
    Expiring,
    /// The server rejected the last connection, or closed it in a way that some servers use for
    /// that (1000, 1002 or 1011 before the acknowledgement).
    ///
    /// If the server has never acknowledged a connection of this client, the second rejection in a
    /// row ends every operation, and so does the third close that only looks like one. Otherwise
    /// the provider is asked for [`refusal_grace`](crate::ClientBuilder::refusal_grace).
    #[non_exhaustive]
    Rejected {
        /// What the server said.
        cause: Disconnect,
    },
}
