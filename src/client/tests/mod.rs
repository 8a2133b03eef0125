//! The client as its readers see it, without a runtime.

mod histories;
