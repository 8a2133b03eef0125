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
    /// What was returned last ends soon, as it says, and the connection is to be replaced before
    /// that.
    Expiring,
    /// The server rejected the last connection, or closed it in a way that some servers use for
    /// that. A second rejection in a row ends every operation; so does the fifth close that only
    /// looks like one (1000, 1002 or 1011 before the acknowledgement).
    #[non_exhaustive]
    Rejected {
        /// What the server said.
        cause: Disconnect,
    },
}
