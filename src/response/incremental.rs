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

use std::{
    cell::Cell,
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use serde::{
    Deserialize, Deserializer as _,
    de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Deserializer, Map, Value, value::RawValue};

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

type Result<T, E = IncrementalError> = std::result::Result<T, E>;

/// The fields of a result, of a part of one, or of an entry in such a part. Other fields are
/// ignored.
#[derive(Deserialize)]
pub(super) struct Part<'a> {
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) errors: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) extensions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    items: Option<&'a RawValue>,
    #[serde(borrow, default)]
    path: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "subPath")]
    sub_path: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pending: Option<&'a RawValue>,
    #[serde(borrow, default)]
    incremental: Option<&'a RawValue>,
    #[serde(borrow, default)]
    completed: Option<&'a RawValue>,
    #[serde(default, rename = "hasNext")]
    has_next: Option<bool>,
}

impl<'a> Part<'a> {
    pub(super) fn read(json: &'a str) -> serde_json::Result<Self> {
        // The derived code would accept an array of the fields' values as well.
        if json.trim_ascii_start().starts_with('{') {
            serde_json::from_str(json)
        } else {
            Err(serde_json::Error::custom("not an object"))
        }
    }

    /// Whether this is only a part of a result. Some servers say `hasNext: false` in whole ones.
    pub(super) fn is_part(&self) -> bool {
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
pub(super) struct Marks {
    /// What `hasNext` says.
    next: Option<bool>,
    /// Whether there is `pending`, `incremental` or `completed`.
    parts: bool,
    path: bool,
}

impl Marks {
    /// Reads the field of a payload that has this name.
    pub(super) fn read<'de, A: MapAccess<'de>>(
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
    pub(super) fn is_part(self, is_empty: bool) -> bool {
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
pub(super) enum Mark {
    HasNext,
    /// `pending`, `incremental` or `completed`.
    Parts,
    Path,
}

impl Mark {
    /// Returns `None` for a field that no result has.
    pub(super) fn named(name: &str) -> Option<Self> {
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

/// Merges the data of a deferred fragment into the object at its place. A patch from before 2023
/// may be an item that follows the last one of a list, too.
fn put_data<'a>(
    root: &mut Node<'a>,
    path: &[PathSegment],
    data: Node<'a>,
    memory: &Memory,
) -> Result<()> {
    let unknown = || IncrementalError::UnknownPath(path.to_vec());
    let Some((segment, parent)) = path.split_last() else {
        // The first part may have had no data at all.
        if root.kind() == Kind::Object && data.kind() != Kind::Object {
            return Err(malformed("deferred data is not an object"));
        }
        return merge_nodes(root, data, 0, memory);
    };
    let parent = descend(root, parent, memory).ok_or_else(unknown)??;
    parent.expand(memory)?;
    let target = match (parent, segment) {
        (Node::List(list), PathSegment::Index(index)) if *index == list.len() as u64 => {
            memory.take(ITEM_BYTES)?;
            list.push(data);
            return Ok(());
        }
        (parent, segment) => parent.child(segment).ok_or_else(unknown)?,
    };
    match (segment, target.kind(), data.kind()) {
        (_, Kind::Object, Kind::Object) | (PathSegment::Index(_), _, _) => {
            merge_nodes(target, data, path.len(), memory)
        }
        (PathSegment::Field(_), _, _) => Err(unknown()),
    }
}

/// Puts items into a list: at its end, or at the index with which the path ends.
fn put_items<'a>(
    root: &mut Node<'a>,
    path: &[PathSegment],
    items: &'a RawValue,
    is_path_of_list: bool,
    memory: &Memory,
) -> Result<()> {
    let unknown = || IncrementalError::UnknownPath(path.to_vec());
    let (path_of_list, mut index) = match path.split_last() {
        _ if is_path_of_list => (path, None),
        Some((PathSegment::Index(index), list)) => (list, Some(*index)),
        Some((PathSegment::Field(_), _)) | None => return Err(unknown()),
    };
    let list = descend(root, path_of_list, memory).ok_or_else(unknown)??;
    list.expand(memory)?;
    let Node::List(list) = list else { return Err(unknown()) };
    each(items, |key, item| {
        if key.is_some() {
            return Err(malformed("`items` is not a list"));
        }
        let at = index.map_or(Ok(list.len()), usize::try_from).map_err(|_| unknown())?;
        index = index.map(|index| index.saturating_add(1));
        let length = list.len();
        match list.get_mut(at) {
            Some(present) => merge_nodes(present, Node::Raw(item), path.len(), memory),
            None if at == length => {
                memory.take(ITEM_BYTES)?;
                list.push(Node::Raw(item));
                Ok(())
            }
            None => Err(unknown()),
        }
    })
}

/// Returns the node at a path, or `None` if there is none.
fn descend<'n, 'a>(
    mut node: &'n mut Node<'a>,
    path: &[PathSegment],
    memory: &Memory,
) -> Option<Result<&'n mut Node<'a>>> {
    for segment in path {
        if let Err(error) = node.expand(memory) {
            return Some(Err(error));
        }
        node = node.child(segment)?;
    }
    Some(Ok(node))
}

/// Merges objects by their fields and lists by their places. Of everything else the later one
/// counts.
fn merge_nodes<'a>(
    target: &mut Node<'a>,
    mut patch: Node<'a>,
    depth: usize,
    memory: &Memory,
) -> Result<()> {
    if target.kind() != patch.kind() || target.kind() == Kind::Scalar {
        *target = patch;
        return Ok(());
    }
    if depth >= MAX_DEPTH {
        return Err(IncrementalError::TooComplex);
    }
    target.expand(memory)?;
    patch.expand(memory)?;
    match (target, patch) {
        (Node::Object(target), Node::Object(patch)) => {
            for (name, value) in patch {
                match target.entry(name) {
                    Entry::Vacant(vacant) => drop(vacant.insert(value)),
                    Entry::Occupied(mut present) => {
                        merge_nodes(present.get_mut(), value, depth + 1, memory)?;
                    }
                }
            }
        }
        (Node::List(target), Node::List(patch)) => {
            for (index, value) in patch.into_iter().enumerate() {
                match target.get_mut(index) {
                    Some(present) => merge_nodes(present, value, depth + 1, memory)?,
                    None => target.push(value),
                }
            }
        }
        (target, patch) => *target = patch,
    }
    Ok(())
}

/// A value in the data. What no part has touched is text.
enum Node<'a> {
    Raw(&'a RawValue),
    Object(BTreeMap<String, Self>),
    List(Vec<Self>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Object,
    List,
    Scalar,
}

impl Node<'_> {
    fn kind(&self) -> Kind {
        match self {
            Self::Object(_) => Kind::Object,
            Self::List(_) => Kind::List,
            Self::Raw(raw) => match raw.get().as_bytes().first() {
                Some(b'{') => Kind::Object,
                Some(b'[') => Kind::List,
                Some(_) | None => Kind::Scalar,
            },
        }
    }

    /// Takes the text of an object or a list apart, one level deep.
    fn expand(&mut self, memory: &Memory) -> Result<()> {
        let Self::Raw(raw) = *self else { return Ok(()) };
        match self.kind() {
            Kind::Scalar => {}
            Kind::Object => {
                memory.take(OBJECT_BYTES)?;
                let mut object = BTreeMap::new();
                each(raw, |name, value| {
                    let name = name.unwrap_or_default();
                    memory.take(FIELD_BYTES + name.len())?;
                    object.insert(name, Node::Raw(value));
                    Ok(())
                })?;
                *self = Self::Object(object);
            }
            Kind::List => {
                let mut list = Vec::new();
                each(raw, |_, value| {
                    memory.take(ITEM_BYTES)?;
                    list.push(Node::Raw(value));
                    Ok(())
                })?;
                *self = Self::List(list);
            }
        }
        Ok(())
    }

    /// Returns a field or an item. The node must be expanded.
    fn child(&mut self, segment: &PathSegment) -> Option<&mut Self> {
        match (self, segment) {
            (Self::Object(object), PathSegment::Field(name)) => object.get_mut(name),
            (Self::List(list), PathSegment::Index(index)) => {
                list.get_mut(usize::try_from(*index).ok()?)
            }
            (Self::Raw(_) | Self::Object(_) | Self::List(_), _) => None,
        }
    }

    /// Writes the value as JSON. What is expanded is at most as deep as parts may be.
    fn write(&self, json: &mut String) -> Result<()> {
        match self {
            Self::Raw(raw) => json.push_str(raw.get()),
            Self::Object(object) => {
                let mut before = '{';
                for (name, value) in object {
                    json.push(before);
                    json.push_str(&serde_json::to_string(name).map_err(malformed)?);
                    json.push(':');
                    value.write(json)?;
                    before = ',';
                }
                json.push_str(if object.is_empty() { "{}" } else { "}" });
            }
            Self::List(list) => {
                let mut before = '[';
                for value in list {
                    json.push(before);
                    value.write(json)?;
                    before = ',';
                }
                json.push_str(if list.is_empty() { "[]" } else { "]" });
            }
        }
        Ok(())
    }
}

impl Default for Node<'_> {
    fn default() -> Self {
        Self::Raw(RawValue::NULL)
    }
}

/// How much memory merging may still take, in bytes. What is built is charged for what it takes at
/// most, so it is little more than an estimate.
struct Memory(Cell<usize>);

impl Memory {
    fn take(&self, bytes: usize) -> Result<()> {
        let rest = self.0.get().checked_sub(bytes).ok_or(IncrementalError::TooComplex)?;
        self.0.set(rest);
        Ok(())
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self(Cell::new(MAX_MERGE_BYTES))
    }
}

/// Visits the values of a list, or those of an object with their names.
fn each<'a>(
    raw: &'a RawValue,
    mut visit: impl FnMut(Option<String>, &'a RawValue) -> Result<()>,
) -> Result<()> {
    let mut failure = None;
    let read = Deserializer::from_str(raw.get()).deserialize_any(Each(|name, value| {
        visit(name, value).map_err(|error| failure = Some(error)).is_ok()
    }));
    match failure {
        Some(error) => Err(error),
        None => read.map_err(malformed),
    }
}

/// Visits values until the closure returns `false`.
struct Each<F>(F);

impl<'de, F: FnMut(Option<String>, &'de RawValue) -> bool> Visitor<'de> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<(), A::Error> {
        while let Some(value) = access.next_element()? {
            if !(self.0)(None, value) {
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<(), A::Error> {
        while let Some((name, value)) = access.next_entry()? {
            if !(self.0)(Some(name), value) {
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
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

/// How deep parts are merged. Each level reads the text below it once more.
const MAX_DEPTH: usize = 64;

/// How long the names in a path may be together.
const MAX_PATH_BYTES: usize = 4096;

/// How much memory merging may take besides the text.
const MAX_MERGE_BYTES: usize = 64 << 20;

/// What an item of a list takes. A list that grows may have twice the room that it needs.
const ITEM_BYTES: usize = 2 * size_of::<Node<'static>>();

/// What a field of an object takes besides its name.
const FIELD_BYTES: usize = 128;

/// What an object takes besides its fields: a node of a B-tree.
const OBJECT_BYTES: usize = 640;

/// How many characters of a reason are kept.
const MAX_WORDS: usize = 200;

#[cfg(test)]
mod tests;
