//! Functions as programs and steps call them.

use std::time::Duration;

use serde::Deserialize;

use super::*;
use crate::{Flow, Problem, Program, Shape, json};

fn value(text: &str) -> Value {
    json::read(text.as_bytes()).expect("JSON")
}

fn score() -> Function {
    let body = |arguments: &[Value]| {
        let (price, country) = (read::<f64>("price", arguments, 0)?, read::<Option<&str>>("country", arguments, 1)?);
        match country {
            Some("nowhere") => Err("no such country".to_owned()),
            Some("broken") => panic!("a fault"),
            country => (price * country.map_or(1.0, |_| 2.0)).made(),
        }
    };
    let signature = Signature::new("score").parameter("price", f64::takes());
    signature.parameter("country", <Option<&str>>::takes()).answers(f64::answers(), true).each(body)
}

/// A function of many events, which fails for all of them if one is below zero, and panics at 13.
fn roots() -> Function {
    let body = |calls: &[Vec<Value>]| {
        each_read(
            calls,
            |arguments| read::<f64>("of", arguments, 0),
            |numbers| {
                assert!(!numbers.contains(&13.0), "thirteen");
                let fails = numbers.iter().any(|number| *number < 0.0);
                let roots = || numbers.iter().map(|number| number.sqrt()).collect::<Vec<f64>>();
                Answers::made(if fails { Err("below zero") } else { Ok(roots()) })
            },
        )
    };
    Signature::new("root").parameter("of", f64::takes()).answers(f64::answers(), true).together(body)
}

fn functions() -> FunctionSet {
    let mut functions = FunctionSet::default();
    functions.add(score()).expect("a name");
    functions.add(roots()).expect("a name");
    functions
}

fn compile(text: &str) -> Result<Program, Vec<Problem>> {
    Program::compile_with(text, &Shape::any(), &functions()).map(|(program, _)| program)
}

fn run(text: &str, event: &str) -> Result<Value, String> {
    let program = compile(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
    program.run(&mut Flow::new(value(event)), Duration::from_secs(5)).map_err(|failure| failure.to_string())
}

#[test]
fn programs_call_functions() {
    assert_eq!(run("score!(.price, .country)", r#"{"price":2,"country":"NL"}"#), Ok(Value::from_f64_or_zero(4.0)));
    assert_eq!(
        run("score!(.price)", r#"{"price":2.5}"#),
        Ok(Value::from_f64_or_zero(2.5)),
        "what takes null may be left out"
    );
    assert_eq!(
        run("score!(country: .country, price: 1)", r#"{"country":"NL"}"#),
        Ok(Value::from_f64_or_zero(2.0)),
        "by name"
    );
    assert_eq!(run("score(.price, \"nowhere\") ?? 0.0", r#"{"price":2}"#), Ok(Value::from_f64_or_zero(0.0)));
    assert_eq!(run("root!(.price)", r#"{"price":9}"#), Ok(Value::from_f64_or_zero(3.0)));
}

#[test]
fn a_failure_says_why_and_a_panic_is_one() {
    let failed = |text: &str| run(text, r#"{"price":"9.99"}"#).expect_err("it fails");
    assert!(failed("score!(1, \"nowhere\")").contains("no such country"));
    assert!(failed("score!(1, \"broken\")").contains("it panicked: a fault"));
    let why = failed("score!(.price)");
    assert!(why.contains("`price` must be a number, and is string: \"9.99\""), "{why}");
}

#[test]
fn programs_are_checked_by_signatures() {
    let refused = |text: &str| {
        let problems = compile(text).err().unwrap_or_else(|| panic!("{text} compiles"));
        problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; ")
    };
    let unsure = refused("score(.price)");
    assert!(unsure.contains("invalid argument type") && unsure.contains("resolves to any"), "{unsure}");
    assert!(refused("score(1.5)").contains("unhandled"), "{}", refused("score(1.5)"));
    assert!(refused("score!(\"x\")").contains("invalid argument type"), "{}", refused("score!(\"x\")"));
    assert!(refused("score!()").contains("missing function argument"), "{}", refused("score!()"));
    assert!(refused("score!(1, \"a\", 3)").contains("wrong number"), "{}", refused("score!(1, \"a\", 3)"));
    assert!(refused("skore!(1)").contains("undefined function"), "{}", refused("skore!(1)"));
    // What it answers is known to what follows.
    assert_eq!(compile("score!(1)").expect("a program").answer(), Type::float());
    assert!(compile("upcase(score!(1))").is_err());
}

#[test]
fn of_many_events_the_one_that_is_to_blame_fails_alone() {
    let calls: Vec<Vec<Value>> =
        ["4", "-1", "9", "\"x\"", "13", "16"].iter().map(|number| vec![value(number)]).collect();
    let made = roots().call(&calls);
    let told: Vec<String> = made.iter().map(|made| made.as_ref().map_or_else(Clone::clone, Value::to_string)).collect();
    assert_eq!(
        told,
        ["2", "below zero", "3", "`of` must be a number, and is string: \"x\"", "it panicked: thirteen", "4"]
    );
    let counts = Signature::new("counts").together(|_| Ok(Vec::new()));
    assert_eq!(counts.call(&calls[..1]), [Err("it was given 1 calls and made 0 answers".to_owned())]);
    assert_eq!(roots().call(&[]), []);
}

#[test]
fn rows_are_read_by_serde() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Deal {
        id: i64,
    }
    let event = value(r#"{"op":"u","before":{"id":1},"after":{"id":2},"movie":{"id":7}}"#);
    let change = Change::<Deal>::take(&event).expect("a change");
    assert!(change.updated() && change.after == Some(Deal { id: 2 }));
    assert_eq!(change.added::<Deal>("movie"), Ok(Deal { id: 7 }));
    let deleted = value(r#"{"op":"d","before":{"id":1},"after":null}"#);
    assert_eq!(Change::<Deal>::take(&deleted).expect("a change").after, None);
    let why = Change::<Deal>::take(&value(r#"{"op":"u","after":{"id":"x"}}"#)).expect_err("no deal");
    assert!(why.starts_with("cannot be taken: invalid type"), "{why}");
    assert_eq!(Json(vec![1, 2]).made(), Ok(value("[1,2]")));
}

#[test]
fn numbers_keep_their_bounds() {
    assert_eq!(i64::take(&value("9007199254740993")), Ok(9_007_199_254_740_993));
    assert!(u32::take(&value("-1")).is_err() && i32::take(&value("2147483648")).is_err());
    assert!(i64::take(&value("1.0")).is_err());
    assert!(f64::NAN.made().is_err() && f64::INFINITY.made().is_err());
    assert_eq!(<Vec<f64>>::take(&value("[1,\"x\"]")).map_err(|why| why.contains("element 1")), Err(true));
}

#[test]
fn names_that_will_not_do_are_refused() {
    let mut functions = functions();
    let mut add = |name: &str| functions.add(Signature::new(name).each(|_| Ok(Value::Null))).err();
    assert_eq!(add("score"), Some(FunctionError::Twice("score".to_owned())));
    assert_eq!(add("upcase"), Some(FunctionError::OfTheLanguage("upcase".to_owned())));
    for name in ["Score", "1st", "", "if", "größe", "a-b"] {
        assert_eq!(add(name), Some(FunctionError::Name(name.to_owned())));
    }
    assert_eq!(add("score_2"), None);
    assert_eq!(score().to_string(), "score(price: integer or float, country: string or null) -> float, or a failure");
}
