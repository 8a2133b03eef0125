//! The rows of an item. Without `flatten`, an item is one row.
//!
//! A row that only says that the server has left something out (`gap_if`) is a notice. It has
//! neither a position nor a key.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::{
    error::DecodeError,
    protocol::Payload,
    response::{Response, decode},
};

/// The options that say what a row is. The stream needs them, and so do the hooks that run in the
/// client's task.
pub(super) struct Rows<T> {
    /// Set by `flatten`.
    pub(super) split: Option<Split<T>>,
    /// Set by `gap_if`.
    pub(super) notice: Option<Notice<T>>,
}

/// Decodes an item that is a list.
pub(super) type Split<T> =
    Arc<dyn Fn(&Payload) -> Result<Response<Vec<T>>, DecodeError> + Send + Sync>;

/// Returns how many items the server has left out, if a row says that.
pub(super) type Notice<T> = Arc<dyn Fn(&T) -> Option<u64> + Send + Sync>;

impl<T> Rows<T> {
    /// How many items the server has left out, if this row is a notice.
    pub(super) fn left_out(&self, data: &T) -> Option<u64> {
        self.notice.as_ref()?(data)
    }
}

impl<T: DeserializeOwned> Rows<T> {
    /// Decodes the rows of an item.
    pub(super) fn read(
        &self,
        item: &Payload,
    ) -> Result<impl Iterator<Item = Response<T>> + use<T>, DecodeError> {
        let (whole, list) = match &self.split {
            None => (Some(decode::<T>(item)?), None),
            Some(split) => (None, Some(split(item)?)),
        };
        Ok(whole.into_iter().chain(list.into_iter().flat_map(rows_of)))
    }

    /// Decodes the row at this index. `None` if the item has no such row, or if it is a notice.
    pub(super) fn at(&self, item: &Payload, index: usize) -> Result<Option<T>, DecodeError> {
        let row = self.read(item)?.nth(index).and_then(|row| row.data);
        Ok(row.filter(|data| self.left_out(data).is_none()))
    }

    /// Decodes the last row that is not a notice.
    pub(super) fn last(&self, item: &Payload) -> Result<Option<T>, DecodeError> {
        let rows = self.read(item)?.filter_map(|row| row.data);
        Ok(rows.filter(|data| self.left_out(data).is_none()).last())
    }
}

/// Returns the rows of a list. The first one has the errors and extensions. No data is one row
/// without data, and so is an empty list with errors.
fn rows_of<T>(list: Response<Vec<T>>) -> impl Iterator<Item = Response<T>> {
    let Response { data, mut errors, mut extensions } = list;
    let is_empty = data.as_ref().is_none_or(|rows| rows.is_empty() && !errors.is_empty());
    let rows = data.unwrap_or_default().into_iter().map(Some);
    rows.chain(is_empty.then_some(None)).map(move |data| Response {
        data,
        errors: std::mem::take(&mut errors),
        extensions: extensions.take(),
    })
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { split: None, notice: None }
    }
}

impl<T> Clone for Rows<T> {
    fn clone(&self) -> Self {
        Self { split: self.split.clone(), notice: self.notice.clone() }
    }
}
