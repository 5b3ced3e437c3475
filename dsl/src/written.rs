//! Streams that are written in Rust: they become the tree that YAML becomes, so that whatever is checked there is checked here, and every
//! value knows its line of Rust. What a key means is told in one place for both, [`docs/pipeline.md`](../../docs/pipeline.md).

mod sink;
mod step;
mod stream;

pub use self::sink::{Conductor, Files, Index, Sink, Sql, Topic, Webhook};
pub use self::step::{Call, Enrich, Lookup, vrl};
pub use self::stream::{Defined, Stream};

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::keys;
use crate::text::{SourceText, is_secret as is_secret_key};
use crate::yaml::{MappingKey, Node, Place, Reader, Tree, hides, print_duration};

/// A value as the pipeline's text would have it, and where in Rust it is written. `${NAME}` in it stands for a variable, as there.
#[derive(Debug, Clone)]
pub struct Written {
    at: &'static Location<'static>,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    Text(String),
    List(Vec<Written>),
    Keys(Vec<(String, Written)>),
}

impl Written {
    #[track_caller]
    fn new(form: Form) -> Self {
        Self { at: Location::caller(), form }
    }

    /// Keys with values, none yet.
    #[track_caller]
    pub fn keys() -> Self {
        Self::new(Form::Keys(Vec::new()))
    }

    /// The same with one more key, or with another value of a key that is there.
    #[track_caller]
    pub fn with(mut self, key: &str, value: impl Into<Self>) -> Self {
        self.put(key, value.into());
        self
    }

    /// A list.
    #[track_caller]
    pub fn list(values: impl IntoIterator<Item = Self>) -> Self {
        Self::new(Form::List(values.into_iter().collect()))
    }

    fn put(&mut self, key: &str, value: Self) {
        match &mut self.form {
            Form::Keys(entries) => match entries.iter_mut().find(|(name, _)| name == key) {
                Some((_, known)) => *known = value,
                None => entries.push((key.to_owned(), value)),
            },
            form => *form = Form::Keys(vec![(key.to_owned(), value)]),
        }
    }

    /// Adds to the list of a key.
    fn push(&mut self, key: &str, value: Self) {
        if let Form::Keys(entries) = &mut self.form
            && let Some((_, Self { form: Form::List(values), .. })) = entries.iter_mut().find(|(name, _)| name == key)
        {
            values.push(value);
            return;
        }
        let at = value.at;
        self.put(key, Self { at, form: Form::List(vec![value]) });
    }

    /// The values of the list of a key.
    fn listed(&self, key: &str) -> &[Self] {
        let Form::Keys(entries) = &self.form else { return &[] };
        match entries.iter().find(|(name, _)| name == key) {
            Some((_, Self { form: Form::List(values), .. })) => values,
            _ => &[],
        }
    }
}

impl From<&str> for Written {
    #[track_caller]
    fn from(text: &str) -> Self {
        Self::new(Form::Text(text.to_owned()))
    }
}

impl From<String> for Written {
    #[track_caller]
    fn from(text: String) -> Self {
        Self::new(Form::Text(text))
    }
}

impl From<bool> for Written {
    #[track_caller]
    fn from(is_on: bool) -> Self {
        Self::new(Form::Text(if is_on { "on" } else { "off" }.to_owned()))
    }
}

impl From<i64> for Written {
    #[track_caller]
    fn from(number: i64) -> Self {
        Self::new(Form::Text(number.to_string()))
    }
}

impl From<Duration> for Written {
    #[track_caller]
    fn from(duration: Duration) -> Self {
        Self::new(Form::Text(print_duration(duration)))
    }
}

impl<T: Into<Written>> From<Vec<T>> for Written {
    #[track_caller]
    fn from(values: Vec<T>) -> Self {
        let location = Location::caller();
        let values = values.into_iter().map(|value| Self { at: location, ..value.into() });
        Self { at: location, form: Form::List(values.collect()) }
    }
}

impl<const N: usize> From<[&str; N]> for Written {
    #[track_caller]
    fn from(values: [&str; N]) -> Self {
        Vec::from(values).into()
    }
}

/// The pipeline's tree, with the streams that are written in Rust behind its own.
pub(crate) fn joined(r: &mut Reader, root: Arc<Node>) -> Arc<Node> {
    let streams = r.inputs.streams();
    let Tree::Mapping(entries) = &root.kind else { return root };
    if streams.is_empty() {
        return root;
    }
    let (mut entries, name) = (entries.clone(), keys::STREAMS.name);
    let own = entries.iter().position(|(key, _)| key.name == name);
    let mut all = match own.and_then(|own| entries.get(own)) {
        None => Vec::new(),
        Some((_, node)) => match &node.kind {
            Tree::Mapping(entries) => entries.clone(),
            Tree::Null => Vec::new(),
            // It is told of where it is read.
            _ => return root,
        },
    };
    for stream in streams {
        let (key, node) = entry(r, stream.name(), stream.definition(), false);
        if let Some((other, _)) = all.iter().find(|(other, _)| other.name == key.name) {
            let spot = r.spot(other.place);
            let message = format!("there are two streams `{}`", key.name);
            let help = format!(
                "the other one is in {}, line {}; give one of the two another name",
                spot.text.file(),
                spot.line
            );
            r.error(key.place, message, Some(help));
            continue;
        }
        all.push((key, node));
    }
    let Some(place) = all.first().map(|(key, _)| key.place) else { return root };
    let node = Arc::new(Node { place, kind: Tree::Mapping(all) });
    match own.and_then(|own| entries.get_mut(own)) {
        Some((_, known)) => *known = node,
        None => entries.push((MappingKey { name: name.to_owned(), place }, node)),
    }
    Arc::new(Node { place: root.place, kind: Tree::Mapping(entries) })
}

/// A key with its value, as a tree.
fn entry(r: &mut Reader, name: &str, value: &Written, is_secret: bool) -> (MappingKey, Arc<Node>) {
    let is_secret = is_secret || hides(name) || (is_secret_key(name) && !name.ends_with("_file"));
    let shown = match &value.form {
        Form::Text(text) => format!("{name}: {text}"),
        _ => format!("{name}:"),
    };
    let text = place(r, value, &shown, name.chars().count(), is_secret);
    let key = MappingKey {
        name: name.to_owned(),
        place: Place { end: (text.start.0, text.start.1 + name.chars().count()), ..text },
    };
    let behind = name.chars().count() + 2;
    (key, node(r, value, text, behind, is_secret))
}

fn node(r: &mut Reader, value: &Written, text: Place, behind: usize, is_secret: bool) -> Arc<Node> {
    let start = (text.start.0, text.start.1 + behind);
    let (place, kind) = match &value.form {
        Form::Text(written) => (Place { start, ..text }, Tree::Scalar(written.clone())),
        Form::List(values) => {
            let item = |value: &Written| {
                let shown = match &value.form {
                    Form::Text(text) => text.as_str(),
                    _ => "",
                };
                let place = place(r, value, shown, 0, is_secret);
                node(r, value, place, 0, is_secret)
            };
            (text, Tree::Sequence(values.iter().map(item).collect()))
        }
        Form::Keys(entries) => {
            let entries = entries.iter().map(|(name, value)| entry(r, name, value, is_secret));
            (text, Tree::Mapping(entries.collect()))
        }
    };
    Arc::new(Node { place, kind })
}

/// A place for a value: a text of its own, which begins at its line and column of Rust.
fn place(r: &mut Reader, value: &Written, shown: &str, key: usize, is_secret: bool) -> Place {
    let (line, column) = (value.at.line() as usize, value.at.column() as usize);
    let padded = format!("{}{shown}", " ".repeat(column.saturating_sub(1)));
    let lines = padded.lines().count().max(1);
    let width = padded.lines().last().unwrap_or_default().chars().count();
    let end = (line + lines - 1, width + 1);
    let mut text = SourceText::masked(value.at.file(), &padded).beginning_at(line);
    if is_secret {
        text.mask((line, column + key), end);
    }
    r.others.push(Arc::new(text));
    Place { start: (line, column), end, text: r.others.len() }
}
