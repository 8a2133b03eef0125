//! Results that a server delivers in parts, as `@defer` and `@stream` ask for.
//!
//! Owns the formats in which servers do that, and merging the parts into one result. There are
//! three formats, and a server may mix them:
//!
//! - Patches (before 2023): after `{data, hasNext: true}`, each part is `{data, path, hasNext}`.
//! - Lists of patches (2023): `{incremental: [{data, path}, {items, path}], hasNext}`. The path of
//!   `items` ends with the index of the first of them.
//! - The draft of the specification: `pending: [{id, path}]` announces places, `incremental: [{id,
//!   subPath, data}, {id, items}]` fills them, and `completed: [{id, errors}]` ends them. `items`
//!   are appended to the list.
//!
//! Only what lies on the path of a part is taken apart. All other data stays text, so merging
//! decodes nothing, and needs little more memory than the text has.

use std::{collections::BTreeMap, fmt};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, value::RawValue};

use super::{
    Response,
    decode::{Mismatch, decode_data, read_details},
};
use crate::{
    error::{
        CallError, DecodeError, GraphQlError, IncrementalError, PathSegment,
        bounded::{Budget, MAX_ERRORS},
    },
    protocol::Payload,
};

mod part;
mod tree;

pub(super) use self::part::{Mark, Marks, Part};
pub(crate) use self::part::{has_next, may_be_part};
use self::tree::{FIELD_BYTES, ITEM_BYTES, MAX_DEPTH, Memory, Node, each, put_data, put_items};

type Result<T, E = IncrementalError> = std::result::Result<T, E>;

/// Merges the parts of a result and decodes it.
///
/// # Errors
///
/// Fails if the parts do not make a whole result, or if it is not of its type.
pub(crate) fn decode_parts<T: DeserializeOwned>(
    parts: &[Payload],
) -> Result<Response<T>, CallError> {
    let Merged { data, errors, extensions } =
        merge(parts.iter().map(Payload::json)).map_err(CallError::Incremental)?;
    match decode_data(&data) {
        Ok(data) => Ok(Response { data, errors, extensions }),
        Err(Mismatch { error, path }) => {
            let raw = format!(r#"{{"data":{data}}}"#);
            Err(CallError::Decode(DecodeError::new(&error, path.as_deref(), errors, &raw)))
        }
    }
}

/// Returns the errors in parts that do not make a whole result.
pub(crate) fn errors_of(parts: &[Payload]) -> Vec<GraphQlError> {
    let mut merger = Merger::default();
    for json in parts.iter().filter_map(|part| part.json().ok()) {
        // What cannot be merged is not wanted here.
        let _ = Part::read(json).map(|part| merger.add(&part));
    }
    merger.errors
}

/// A whole result.
#[derive(Debug)]
struct Merged {
    /// JSON.
    data: String,
    errors: Vec<GraphQlError>,
    extensions: Option<Map<String, Value>>,
}

/// Merges the parts of a result, in their order.
fn merge<'a>(parts: impl Iterator<Item = serde_json::Result<&'a str>>) -> Result<Merged> {
    let mut merger = Merger::default();
    let mut is_last = false;
    for json in parts {
        let part = json.and_then(Part::read).map_err(malformed)?;
        is_last = part.has_next == Some(false);
        merger.add(&part)?;
    }
    let Merger { data, places, errors, extensions, .. } = merger;
    if !is_last || places.values().any(|place| !place.is_filled) {
        return Err(IncrementalError::Incomplete(errors));
    }
    let mut json = String::new();
    data.unwrap_or_default().write(&mut json)?;
    Ok(Merged { data: json, errors, extensions })
}

/// The parts that were merged so far.
#[derive(Default)]
struct Merger<'a> {
    /// `None` before the first part.
    data: Option<Node<'a>>,
    /// The announced places, by id.
    places: BTreeMap<&'a str, Place>,
    errors: Vec<GraphQlError>,
    extensions: Option<Map<String, Value>>,
    /// For the errors and extensions of all parts.
    budget: Budget,
    memory: Memory,
}

/// A place in the data that was announced.
struct Place {
    path: Vec<PathSegment>,
    /// Whether anything came for it.
    is_filled: bool,
}

impl<'a> Merger<'a> {
    fn add(&mut self, part: &Part<'a>) -> Result<()> {
        self.gather(part)?;
        if let Some(pending) = part.pending {
            each(pending, |_, place| self.announce(&Part::read(place.get()).map_err(malformed)?))?;
        }
        if self.data.is_none() {
            self.data = Some(part.data.map(Node::Raw).unwrap_or_default());
        } else {
            self.patch(part)?;
        }
        if let Some(incremental) = part.incremental {
            each(incremental, |_, entry| {
                let entry = Part::read(entry.get()).map_err(malformed)?;
                self.gather(&entry)?;
                self.patch(&entry)
            })?;
        }
        if let Some(completed) = part.completed {
            each(completed, |_, entry| {
                let entry = Part::read(entry.get()).map_err(malformed)?;
                self.gather(&entry)?;
                let id = entry.id.ok_or_else(|| malformed("an entry of `completed` has no id"))?;
                self.fill(id).map(drop)
            })?;
        }
        Ok(())
    }

    /// Keeps the errors and extensions.
    fn gather(&mut self, part: &Part<'a>) -> Result<()> {
        let room = MAX_ERRORS - self.errors.len();
        let errors = part.errors.filter(|_| room > 0);
        if errors.is_none() && part.extensions.is_none() {
            return Ok(());
        }
        let (errors, extensions) =
            read_details(errors, part.extensions, &self.budget).map_err(malformed)?;
        self.errors.extend(errors.into_iter().take(room));
        if let Some(extensions) = extensions {
            self.extensions.get_or_insert_default().extend(extensions);
        }
        Ok(())
    }

    fn announce(&mut self, place: &Part<'a>) -> Result<()> {
        let id = place.id.ok_or_else(|| malformed("an entry of `pending` has no id"))?;
        let path = self.path(place.path, Vec::new())?;
        self.memory.take(FIELD_BYTES)?;
        self.places.insert(unquoted(id), Place { path, is_filled: false });
        Ok(())
    }

    /// Returns the path of an announced place, for which something came.
    fn fill(&mut self, id: &'a RawValue) -> Result<&[PathSegment]> {
        let id = unquoted(id);
        let place = self.places.get_mut(id);
        let place =
            place.ok_or_else(|| IncrementalError::UnknownId(id.chars().take(100).collect()))?;
        place.is_filled = true;
        Ok(&place.path)
    }

    /// Puts the data or the items of a part in their place. A part that failed has none, and leaves
    /// the data as it was.
    fn patch(&mut self, part: &Part<'a>) -> Result<()> {
        let path = match part.id {
            Some(id) => {
                let path = self.fill(id)?.to_vec();
                self.path(part.sub_path, path)?
            }
            None => self.path(part.path, Vec::new())?,
        };
        let root = self.data.get_or_insert_default();
        if let Some(data) = part.data {
            put_data(root, &path, Node::Raw(data), &self.memory)?;
        }
        if let Some(items) = part.items {
            put_items(root, &path, items, part.id.is_some(), &self.memory)?;
        }
        Ok(())
    }

    /// Reads a path that goes on after another one.
    fn path(
        &self,
        raw: Option<&'a RawValue>,
        mut path: Vec<PathSegment>,
    ) -> Result<Vec<PathSegment>> {
        let mut name_bytes: usize = path.iter().map(segment_bytes).sum();
        if let Some(raw) = raw {
            each(raw, |key, segment| {
                if key.is_some() {
                    return Err(malformed("a path is not a list"));
                }
                let segment = match segment.get().as_bytes().first() {
                    Some(b'"') => serde_json::from_str(segment.get()).map(PathSegment::Field),
                    _ => serde_json::from_str(segment.get()).map(PathSegment::Index),
                };
                let segment = segment.map_err(malformed)?;
                name_bytes += segment_bytes(&segment);
                path.push(segment);
                if path.len() > MAX_DEPTH || name_bytes > MAX_PATH_BYTES {
                    return Err(IncrementalError::TooComplex);
                }
                Ok(())
            })?;
        }
        // Walking it takes time, which is bounded in this way.
        self.memory.take(ITEM_BYTES * (1 + path.len()))?;
        Ok(path)
    }
}

/// An id is a string; some servers send a number.
fn unquoted(id: &RawValue) -> &str {
    id.get().trim_matches('"')
}

fn segment_bytes(segment: &PathSegment) -> usize {
    match segment {
        PathSegment::Field(name) => name.len(),
        PathSegment::Index(_) => size_of::<u64>(),
    }
}

fn malformed(why: impl fmt::Display) -> IncrementalError {
    IncrementalError::Malformed(why.to_string().chars().take(MAX_WORDS).collect())
}

/// How long the names in a path may be together.
const MAX_PATH_BYTES: usize = 4096;

/// How many characters of a reason are kept.
const MAX_WORDS: usize = 200;

#[cfg(test)]
mod tests;
