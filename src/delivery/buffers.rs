//! Text buffers that are used again: received text is copied into one, and the reader gives it
//! back.
//!
//! Owns how much is kept. So nothing is allocated for an item once a client is warm, no reader
//! holds on to the socket's own buffer, and what waits in a mailbox takes at most twice what it
//! says and 1 KiB for each item.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::protocol::Payload;

/// What readers give back.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// The last one is the warmest; those that nobody needs writer to the front.
    buffers: VecDeque<String>,
    /// The capacity of all.
    bytes: usize,
}

/// The driver's own stock, taken from the buffers given back all at once.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    buffers: VecDeque<String>,
}

impl Buffers {
    /// What was read is not needed any more.
    pub(crate) fn give_back(&self, item: Payload) {
        if let Some(buffer) = item.into_buffer() {
            self.keep(buffer);
        }
    }

    fn keep(&self, mut buffer: String) {
        if buffer.capacity() > MAX_BYTES {
            return;
        }
        buffer.clear();
        let mut free = self.lock();
        free.bytes += buffer.capacity();
        free.buffers.push_back(buffer);
        while free.bytes > MAX_BYTES {
            let Some(coldest) = free.buffers.pop_front() else { break };
            free.bytes -= coldest.capacity();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    /// Copies the text into a buffer.
    pub(crate) fn copy(&mut self, text: &str, from: &Buffers) -> String {
        if self.buffers.is_empty() {
            let mut free = from.lock();
            std::mem::swap(&mut free.buffers, &mut self.buffers);
            free.bytes = 0;
        }
        while let Some(mut buffer) = self.buffers.pop_back() {
            // Not one that would waste memory: it may be held for long.
            if buffer.capacity() <= text.len() * 2 + SLACK {
                buffer.push_str(text);
                return buffer;
            }
        }
        text.to_owned()
    }
}

/// The most that is kept, in bytes of capacity; as much again may be in the driver's stock.
const MAX_BYTES: usize = 1024 * 1024;

/// How much larger than twice its text a buffer may be, in bytes.
const SLACK: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_used_again_the_warmest_first() {
        let (buffers, mut stock) = (Buffers::default(), Stock::default());
        let (first, second) = (stock.copy("first", &buffers), stock.copy("second", &buffers));
        let place = second.as_ptr();
        buffers.keep(first);
        buffers.keep(second);
        let again = stock.copy("third", &buffers);
        assert_eq!((again.as_str(), again.as_ptr()), ("third", place));
    }

    #[test]
    fn a_small_text_does_not_hold_a_large_buffer() {
        let (buffers, mut stock) = (Buffers::default(), Stock::default());
        buffers.keep(String::with_capacity(100_000));
        assert!(stock.copy("small", &buffers).capacity() <= SLACK + 10);
        buffers.keep(String::with_capacity(100_000));
        assert_eq!(stock.copy(&"x".repeat(60_000), &buffers).capacity(), 100_000);
        buffers.keep(String::with_capacity(5_000));
        assert!(stock.copy(&"x".repeat(1_000), &buffers).capacity() <= 1_000 * 2 + SLACK);
    }

    #[test]
    fn what_was_taken_makes_room_for_what_is_given_back() {
        let (buffers, mut stock) = (Buffers::default(), Stock::default());
        for _ in 0..10 {
            buffers.keep(String::with_capacity(MAX_BYTES));
            assert_eq!(stock.copy(&"x".repeat(MAX_BYTES - 1), &buffers).capacity(), MAX_BYTES);
        }
    }

    #[test]
    fn no_more_is_kept_than_the_bound_and_the_coldest_go_first() {
        let buffers = Buffers::default();
        buffers.keep(String::with_capacity(MAX_BYTES + 1));
        assert!(buffers.lock().buffers.is_empty(), "larger than all together may be");
        for _ in 0..10 {
            buffers.keep(String::with_capacity(MAX_BYTES / 4));
        }
        for _ in 0..10 {
            buffers.keep(String::with_capacity(100));
        }
        let free = buffers.lock();
        assert_eq!(free.bytes, free.buffers.iter().map(String::capacity).sum::<usize>());
        assert!(free.bytes <= MAX_BYTES);
        assert_eq!(free.buffers.len(), 3 + 10);
    }
}
