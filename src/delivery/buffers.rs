//! Reusable text buffers. The driver copies received text into one, and the reader gives it back.
//!
//! Owns the limit of unused buffers. Reuse means that an item needs no allocation once a client is
//! warm. The copy means that no reader keeps the socket's own buffer alive. An item in a mailbox
//! uses at most twice its size plus 1 KiB of memory.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::protocol::Payload;

/// Buffers that readers have given back.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// The last buffer was used most recently, so it is the most likely to be in a CPU cache.
    buffers: VecDeque<String>,
    /// The total capacity of these buffers.
    bytes: usize,
}

/// The driver's own buffers. It takes all buffers that were given back at once, so that it rarely
/// needs the lock.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    buffers: VecDeque<String>,
}

impl Buffers {
    /// Takes back the buffer of an item that was read, if nobody else uses it.
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
            // A larger buffer would waste memory, because the item may wait for a long time.
            if buffer.capacity() <= text.len() * 2 + SLACK {
                buffer.push_str(text);
                return buffer;
            }
        }
        text.to_owned()
    }
}

/// The limit of the capacity of all unused buffers, in bytes. The driver's stock may hold as much
/// again.
const MAX_BYTES: usize = 1024 * 1024;

/// How many bytes a buffer may be larger than twice its text.
const SLACK: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_that_was_given_back_last_is_reused_first() {
        let (buffers, mut stock) = (Buffers::default(), Stock::default());
        let (first, second) = (stock.copy("first", &buffers), stock.copy("second", &buffers));
        let place = second.as_ptr();
        buffers.keep(first);
        buffers.keep(second);
        let again = stock.copy("third", &buffers);
        assert_eq!((again.as_str(), again.as_ptr()), ("third", place));
    }

    #[test]
    fn a_small_text_does_not_use_a_large_buffer() {
        let (buffers, mut stock) = (Buffers::default(), Stock::default());
        buffers.keep(String::with_capacity(100_000));
        assert!(stock.copy("small", &buffers).capacity() <= SLACK + 10);
        buffers.keep(String::with_capacity(100_000));
        assert_eq!(stock.copy(&"x".repeat(60_000), &buffers).capacity(), 100_000);
        buffers.keep(String::with_capacity(5_000));
        assert!(stock.copy(&"x".repeat(1_000), &buffers).capacity() <= 1_000 * 2 + SLACK);
    }

    #[test]
    fn buffers_that_the_driver_took_make_room_for_others() {
        let (buffers, mut stock) = (Buffers::default(), Stock::default());
        for _ in 0..10 {
            buffers.keep(String::with_capacity(MAX_BYTES));
            assert_eq!(stock.copy(&"x".repeat(MAX_BYTES - 1), &buffers).capacity(), MAX_BYTES);
        }
    }

    #[test]
    fn the_oldest_buffers_are_dropped_when_the_limit_is_exceeded() {
        let buffers = Buffers::default();
        buffers.keep(String::with_capacity(MAX_BYTES + 1));
        assert!(buffers.lock().buffers.is_empty(), "it is larger than the limit");
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
