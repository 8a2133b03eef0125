//! A scripted GraphQL-over-WebSocket server for tests.
