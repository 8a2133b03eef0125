//! A scripted GraphQL-over-WebSocket server for tests.
mod check;
