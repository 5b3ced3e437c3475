//! Types of Rust as arguments and answers of functions. Numbers, text, truth and lists are taken as they are; anything with fields by way of
//! serde ([`Json`], [`Change`]).

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map as JsonMap, Value as JsonValue};
use vrl::value::{KeyString, Value};

use super::{Function, Made, Type};
use crate::json;

/// A function that is declared by its type: what `#[tributary::function]` is written on.
pub trait Declared {
    /// The function.
    fn function() -> Function;
}

/// A type that a function may take.
#[diagnostic::on_unimplemented(
    message = "a function of a pipeline cannot take `{Self}`",
    note = "it takes numbers (f64, i64, i32, u32), bool, &str, String, Option, Vec, BTreeMap<String, _>, Value, Change<T>, and Json<T> of \
            whatever serde can read"
)]
pub trait Argument<'v>: Sized {
    /// Whether a value of the type may still be refused.
    const CAN_FAIL: bool = false;

    /// What programs may hand in.
    fn takes() -> Type;

    /// Takes a value.
    ///
    /// # Errors
    /// It is another one; a sentence without a subject.
    fn take(value: &'v Value) -> Result<Self, String>;
}

/// A type that a function may answer.
#[diagnostic::on_unimplemented(
    message = "a function of a pipeline cannot answer `{Self}`",
    note = "it answers numbers (f64, i64, i32, u32), bool, String, Option, Vec, BTreeMap<String, _>, Value, Json<T> of whatever serde can \
            write, or a Result of one of these"
)]
pub trait Outcome {
    /// Whether it may be a failure.
    const CAN_FAIL: bool = false;

    /// What programs get.
    fn answers() -> Type;

    /// The value.
    ///
    /// # Errors
    /// It is a failure, or no value.
    fn made(self) -> Made;
}

/// What a function answers that is called for many events at a time: a `Vec` with an answer for each, in their order, or a `Result` of one.
#[diagnostic::on_unimplemented(
    message = "a function that is called for many events cannot answer `{Self}`",
    note = "it answers a Vec with as many elements as it was given, or a Result of such a Vec"
)]
pub trait Answers {
    /// Whether one may be a failure.
    const CAN_FAIL: bool;

    /// What programs get of each.
    fn answers() -> Type;

    /// The values.
    ///
    /// # Errors
    /// All of them failed.
    fn made(self) -> Result<Vec<Made>, String>;
}

impl<T: Outcome> Answers for Vec<T> {
    const CAN_FAIL: bool = T::CAN_FAIL;

    fn answers() -> Type {
        T::answers()
    }

    fn made(self) -> Result<Vec<Made>, String> {
        Ok(self.into_iter().map(Outcome::made).collect())
    }
}

impl<T: Outcome, E: Display> Answers for Result<Vec<T>, E> {
    const CAN_FAIL: bool = true;

    fn answers() -> Type {
        T::answers()
    }

    fn made(self) -> Result<Vec<Made>, String> {
        Answers::made(self.map_err(|e| e.to_string())?)
    }
}

/// Takes an argument by its place.
///
/// # Errors
/// It is of another type: a sentence that names it.
pub fn read<'v, T: Argument<'v>>(name: &str, arguments: &'v [Value], place: usize) -> Result<T, String> {
    T::take(arguments.get(place).unwrap_or(&Value::Null)).map_err(|why| format!("`{name}` {why}"))
}

/// Calls a function for many events at a time, without those whose arguments it cannot take.
///
/// # Errors
/// The function fails for all of them.
pub fn each_read<'v, A>(
    calls: &'v [Vec<Value>],
    read: impl Fn(&'v [Value]) -> Result<A, String>,
    call: impl FnOnce(Vec<A>) -> Result<Vec<Made>, String>,
) -> Result<Vec<Made>, String> {
    let (mut taken, mut refused) = (Vec::with_capacity(calls.len()), BTreeMap::new());
    for (place, arguments) in calls.iter().enumerate() {
        match read(arguments) {
            Ok(arguments) => taken.push(arguments),
            Err(why) => drop(refused.insert(place, why)),
        }
    }
    let mut made = if taken.is_empty() { Vec::new() } else { call(taken)? };
    // In the order of their places, each shifts those behind it.
    for (place, why) in refused {
        made.insert(place.min(made.len()), Err(why));
    }
    Ok(made)
}

fn other<T>(wanted: &str, value: &Value) -> Result<T, String> {
    let text = value.to_string();
    let shown: String = text.chars().take(60).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    Err(format!("must be {wanted}, and is {}: {shown}{more}", value.kind()))
}

impl Argument<'_> for f64 {
    fn takes() -> Type {
        Type::number()
    }

    fn take(value: &Value) -> Result<Self, String> {
        match value {
            Value::Float(float) => Ok(float.into_inner()),
            // A number of a program, not a key: the nearest float will do.
            Value::Integer(whole) => Ok(*whole as Self),
            value => other("a number", value),
        }
    }
}

impl Outcome for f64 {
    const CAN_FAIL: bool = true;

    fn answers() -> Type {
        Type::float()
    }

    fn made(self) -> Made {
        // JSON has no others.
        if self.is_finite() {
            Ok(Value::from_f64_or_zero(self))
        } else {
            Err(format!("it answered {self}, which is no number"))
        }
    }
}

macro_rules! whole_numbers {
    ($($whole:ty: $can_fail:expr),*) => {$(
        impl Argument<'_> for $whole {
            const CAN_FAIL: bool = $can_fail;

            fn takes() -> Type {
                Type::whole()
            }

            fn take(value: &Value) -> Result<Self, String> {
                match value {
                    Value::Integer(whole) => Self::try_from(*whole)
                        .or_else(|_| other(concat!("a whole number of the size of ", stringify!($whole)), value)),
                    value => other("a whole number", value),
                }
            }
        }

        impl Outcome for $whole {
            fn answers() -> Type {
                Type::whole()
            }

            fn made(self) -> Made {
                Ok(Value::Integer(self.into()))
            }
        }
    )*};
}

whole_numbers!(i64: false, i32: true, u32: true);

impl Argument<'_> for bool {
    fn takes() -> Type {
        Type::truth()
    }

    fn take(value: &Value) -> Result<Self, String> {
        value.as_boolean().map_or_else(|| other("true or false", value), Ok)
    }
}

impl Outcome for bool {
    fn answers() -> Type {
        Type::truth()
    }

    fn made(self) -> Made {
        Ok(Value::Boolean(self))
    }
}

impl<'v> Argument<'v> for &'v str {
    fn takes() -> Type {
        Type::text()
    }

    fn take(value: &'v Value) -> Result<Self, String> {
        match value {
            Value::Bytes(bytes) => std::str::from_utf8(bytes).or_else(|_| other("text", value)),
            Value::String(text) => Ok(text),
            value => other("text", value),
        }
    }
}

impl Argument<'_> for String {
    fn takes() -> Type {
        Type::text()
    }

    fn take(value: &Value) -> Result<Self, String> {
        <&str>::take(value).map(str::to_owned)
    }
}

impl Outcome for String {
    fn answers() -> Type {
        Type::text()
    }

    fn made(self) -> Made {
        Ok(Value::from(self))
    }
}

impl Outcome for &str {
    fn answers() -> Type {
        Type::text()
    }

    fn made(self) -> Made {
        Ok(Value::from(self))
    }
}

impl Argument<'_> for Value {
    fn takes() -> Type {
        Type::any()
    }

    fn take(value: &Value) -> Result<Self, String> {
        Ok(value.clone())
    }
}

impl<'v> Argument<'v> for &'v Value {
    fn takes() -> Type {
        Type::any()
    }

    fn take(value: &'v Value) -> Result<Self, String> {
        Ok(value)
    }
}

impl Outcome for Value {
    fn answers() -> Type {
        Type::any()
    }

    fn made(self) -> Made {
        Ok(self)
    }
}

impl Outcome for () {
    fn answers() -> Type {
        Type::null()
    }

    fn made(self) -> Made {
        Ok(Value::Null)
    }
}

impl<'v, T: Argument<'v>> Argument<'v> for Option<T> {
    const CAN_FAIL: bool = T::CAN_FAIL;

    fn takes() -> Type {
        T::takes().or_null()
    }

    fn take(value: &'v Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(None),
            value => T::take(value).map(Some),
        }
    }
}

impl<T: Outcome> Outcome for Option<T> {
    const CAN_FAIL: bool = T::CAN_FAIL;

    fn answers() -> Type {
        T::answers().or_null()
    }

    fn made(self) -> Made {
        self.map_or(Ok(Value::Null), Outcome::made)
    }
}

impl<'v, T: Argument<'v>> Argument<'v> for Vec<T> {
    const CAN_FAIL: bool = T::CAN_FAIL;

    fn takes() -> Type {
        Type::list(T::takes())
    }

    fn take(value: &'v Value) -> Result<Self, String> {
        let Value::Array(elements) = value else { return other("a list", value) };
        let element = |(place, element)| T::take(element).map_err(|why| format!("has an element {place} that {why}"));
        elements.iter().enumerate().map(element).collect()
    }
}

impl<T: Outcome> Outcome for Vec<T> {
    const CAN_FAIL: bool = T::CAN_FAIL;

    fn answers() -> Type {
        Type::list(T::answers())
    }

    fn made(self) -> Made {
        self.into_iter().map(Outcome::made).collect::<Result<_, _>>().map(Value::Array)
    }
}

impl<'v, T: Argument<'v>> Argument<'v> for BTreeMap<String, T> {
    // What lies in its fields is not known beforehand.
    const CAN_FAIL: bool = true;

    fn takes() -> Type {
        Type::object()
    }

    fn take(value: &'v Value) -> Result<Self, String> {
        let Value::Object(fields) = value else { return other("an object", value) };
        let field = |(name, value)| {
            let name: &KeyString = name;
            let value = T::take(value).map_err(|why| format!("has a field `{name}` that {why}"))?;
            Ok((name.to_string(), value))
        };
        fields.iter().map(field).collect()
    }
}

impl<T: Outcome> Outcome for BTreeMap<String, T> {
    const CAN_FAIL: bool = T::CAN_FAIL;

    fn answers() -> Type {
        Type::object()
    }

    fn made(self) -> Made {
        let field = |(name, value): (String, T)| Ok((KeyString::from(name), value.made()?));
        self.into_iter().map(field).collect::<Result<_, String>>().map(Value::Object)
    }
}

impl<T: Outcome, E: Display> Outcome for Result<T, E> {
    const CAN_FAIL: bool = true;

    fn answers() -> Type {
        T::answers()
    }

    fn made(self) -> Made {
        self.map_err(|e| e.to_string())?.made()
    }
}

/// Whatever serde can read, or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> Argument<'_> for Json<T> {
    const CAN_FAIL: bool = true;

    fn takes() -> Type {
        Type::any()
    }

    fn take(value: &Value) -> Result<Self, String> {
        typed(value).map(Self)
    }
}

impl<T: Serialize> Outcome for Json<T> {
    const CAN_FAIL: bool = true;

    fn answers() -> Type {
        Type::any()
    }

    fn made(self) -> Made {
        let bytes = serde_json::to_vec(&self.0).map_err(|e| format!("its answer cannot be written: {e}"))?;
        json::read(&bytes).map_err(|e| format!("its answer: {e}"))
    }
}

fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    let mut bytes = Vec::new();
    json::write(value, &mut bytes);
    serde_json::from_slice(&bytes).map_err(|e| format!("cannot be taken: {e}"))
}

/// A change of a row of a table, or what steps have made of it so far.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Change<T> {
    /// `c` inserted, `u` updated, `d` deleted, `r` read by a dump.
    pub op: String,
    /// The row after the change; none where it was deleted. Large values that did not change may lack, so let serde have a default for
    /// them.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub after: Option<T>,
    /// The row before the change, as far as the source knows it: perhaps its key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<JsonMap<String, JsonValue>>,
    /// Everything else: `source`, `sequence`, what steps have added.
    #[serde(flatten)]
    pub others: JsonMap<String, JsonValue>,
}

fn none<T>() -> Option<T> {
    None
}

impl<T> Change<T> {
    /// Whether a row was inserted.
    pub fn inserted(&self) -> bool {
        self.op == "c"
    }

    /// Whether a row was updated.
    pub fn updated(&self) -> bool {
        self.op == "u"
    }

    /// Whether a row was deleted.
    pub fn deleted(&self) -> bool {
        self.op == "d"
    }

    /// What a step has added under a name.
    ///
    /// # Errors
    /// It is not there, or another one: a sentence.
    pub fn added<A: DeserializeOwned>(&self, name: &str) -> Result<A, String> {
        let value = self.others.get(name).cloned().unwrap_or_default();
        serde_json::from_value(value).map_err(|e| format!("`.{name}` cannot be taken: {e}"))
    }
}

impl<T: DeserializeOwned> Argument<'_> for Change<T> {
    const CAN_FAIL: bool = true;

    fn takes() -> Type {
        Type::object()
    }

    fn take(value: &Value) -> Result<Self, String> {
        typed(value)
    }
}
