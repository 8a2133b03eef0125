//! The formats in which a server delivers the parts of a result.

use serde::{
    Deserialize,
    de::{Error as _, MapAccess},
};
use serde_json::value::RawValue;

use crate::protocol::Payload;

/// The fields of a result, of a part of one, or of an entry in such a part. Other fields are
/// ignored.
#[derive(Deserialize)]
pub(in crate::response) struct Part<'a> {
    #[serde(borrow, default)]
    pub(in crate::response) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(in crate::response) errors: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(in crate::response) extensions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) items: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) path: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "subPath")]
    pub(super) sub_path: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) pending: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) incremental: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) completed: Option<&'a RawValue>,
    #[serde(default, rename = "hasNext")]
    pub(super) has_next: Option<bool>,
}

impl<'a> Part<'a> {
    pub(in crate::response) fn read(json: &'a str) -> serde_json::Result<Self> {
        // The derived code would accept an array of the fields' values as well.
        if json.trim_ascii_start().starts_with('{') {
            serde_json::from_str(json)
        } else {
            Err(serde_json::Error::custom("not an object"))
        }
    }

    /// Whether this is only a part of a result. Some servers say `hasNext: false` in whole ones.
    pub(in crate::response) fn is_part(&self) -> bool {
        let Self { data, errors, path, pending, incremental, completed, has_next, .. } = self;
        Marks {
            next: *has_next,
            parts: pending.is_some() || incremental.is_some() || completed.is_some(),
            path: path.is_some(),
        }
        .is_part(data.is_none() && errors.is_none())
    }
}

/// The fields of a payload that only incremental delivery uses.
#[derive(Clone, Copy, Default)]
pub(in crate::response) struct Marks {
    /// What `hasNext` says.
    next: Option<bool>,
    /// Whether there is `pending`, `incremental` or `completed`.
    parts: bool,
    path: bool,
}

impl Marks {
    /// Reads the field of a payload that has this name.
    pub(in crate::response) fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: Mark,
        access: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            Mark::HasNext => self.next = access.next_value()?,
            Mark::Parts => self.parts |= is_set(access)?,
            Mark::Path => self.path |= is_set(access)?,
        }
        Ok(())
    }

    /// Whether the payload is only a part of a result. `is_empty` says that it has neither data nor
    /// errors.
    pub(in crate::response) fn is_part(self, is_empty: bool) -> bool {
        self.parts
            || match self.next {
                Some(true) => true,
                Some(false) => self.path || is_empty,
                None => false,
            }
    }
}

/// A field that only incremental delivery uses.
#[derive(Clone, Copy)]
pub(in crate::response) enum Mark {
    HasNext,
    /// `pending`, `incremental` or `completed`.
    Parts,
    Path,
}

impl Mark {
    /// Returns `None` for a field that no result has.
    pub(in crate::response) fn named(name: &str) -> Option<Self> {
        match name {
            "hasNext" => Some(Self::HasNext),
            "pending" | "incremental" | "completed" => Some(Self::Parts),
            "path" => Some(Self::Path),
            _ => None,
        }
    }
}

/// Reads a value, and returns whether it is not `null`.
fn is_set<'de, A: MapAccess<'de>>(access: &mut A) -> Result<bool, A::Error> {
    Ok(access.next_value::<Option<serde::de::IgnoredAny>>()?.is_some())
}

/// Whether the payload of a frame may say `hasNext`. Costs one search of the text.
pub(crate) fn may_be_part(frame: &str) -> bool {
    frame.contains(r#""hasNext""#)
}

/// Whether a payload says that parts follow. `None` if it does not say.
pub(crate) fn has_next(payload: &Payload) -> Option<bool> {
    #[derive(Deserialize)]
    struct HasNext {
        #[serde(default, rename = "hasNext")]
        has_next: Option<bool>,
    }
    payload.decode::<HasNext>().ok()?.has_next
}
