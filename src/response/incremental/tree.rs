//! The data of a result whose parts are merged: a tree in which only what a part has touched is
//! taken apart.

use std::{
    cell::Cell,
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use serde::{
    Deserializer as _,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Deserializer, value::RawValue};

use super::{Result, malformed};
use crate::error::{IncrementalError, PathSegment};

/// Merges the data of a deferred fragment into the object at its place. A patch from before 2023
/// may be an item that follows the last one of a list, too.
pub(super) fn put_data<'a>(
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
pub(super) fn put_items<'a>(
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
pub(super) enum Node<'a> {
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
    pub(super) fn write(&self, json: &mut String) -> Result<()> {
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
pub(super) struct Memory(Cell<usize>);

impl Memory {
    pub(super) fn take(&self, bytes: usize) -> Result<()> {
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
pub(super) fn each<'a>(
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

/// How deep parts are merged. Each level reads the text below it once more.
pub(super) const MAX_DEPTH: usize = 64;

/// How much memory merging may take besides the text.
const MAX_MERGE_BYTES: usize = 64 << 20;

/// What an item of a list takes. A list that grows may have twice the room that it needs.
pub(super) const ITEM_BYTES: usize = 2 * size_of::<Node<'static>>();

/// What a field of an object takes besides its name.
pub(super) const FIELD_BYTES: usize = 128;

/// What an object takes besides its fields: a node of a B-tree.
const OBJECT_BYTES: usize = 640;
