use tributary_event::Op;

use super::*;
use crate::fields::Fields;
use crate::json;

const CHANGES: [Op; 3] = [Op::Create, Op::Update, Op::Delete];

fn compiled(text: &str, shape: &Shape) -> Program {
    Program::compile(text, shape).unwrap_or_else(|problems| panic!("{text}: {problems:?}")).0
}

fn wrong(text: &str, shape: &Shape) -> Vec<Problem> {
    Program::compile(text, shape).err().unwrap_or_else(|| panic!("{text} compiles"))
}

fn flow(json: &str) -> Flow {
    Flow::new(json::read(json.as_bytes()).expect("JSON"))
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_condition_says_what_it_reads() {
    let signed = compiled(r#".op == "u" && .after.status == "signed""#, &Shape::event(&CHANGES));
    assert!(signed.is_condition() && signed.only_looks() && !signed.can_fail());
    assert_eq!(signed.reads(), [".op", ".after.status"]);
    for (status, expected) in [("signed", true), ("draft", false)] {
        let mut flow = flow(&format!(r#"{{"op":"u","after":{{"status":"{status}"}}}}"#));
        assert_eq!(signed.run(&mut flow, SECOND), Ok(Value::Boolean(expected)));
    }
    assert!(!compiled(".op", &Shape::any()).is_condition());
}

#[test]
fn what_a_condition_does_not_look_at_need_not_be_read() {
    let event = r#"{"op":"u","a":{"b":[{"c":1},{"c":2}],"d":7,"e":null},"x y":"z","other":{"deep":[1,2]}}"#;
    for (text, read) in [
        ("true", "{}"),
        (".op == \"u\"", r#"{"op":"u"}"#),
        (".a.b[1].c == 2", r#"{"a":{"b":[{"c":1},{"c":2}]}}"#),
        (".a.d == 7 && .\"x y\" == \"z\"", r#"{"a":{"d":7},"x y":"z"}"#),
        ("exists(.a.e) && !exists(.a.f)", r#"{"a":{"e":null}}"#),
        ("is_object(.a) && .a.d == 7", r#"{"a":{"b":[{"c":1},{"c":2}],"d":7,"e":null}}"#),
        ("length(object(.)) == 4", event),
        (".op.b == null", r#"{"op":"u"}"#),
    ] {
        let program = compiled(text, &Shape::any());
        let some = json::read_some(event.as_bytes(), &program.fields()).expect("JSON");
        let same = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(serde_json::to_value(&some).expect("JSON"), same(read), "{text}");
        assert_eq!(program.run(&mut Flow::new(some), SECOND), Ok(Value::Boolean(true)), "{text}");
        assert_eq!(program.run(&mut flow(event), SECOND), Ok(Value::Boolean(true)), "{text}");
    }
    assert!(json::read_some(b"{\"a\":", &Fields::default()).is_err());
}

#[test]
fn a_program_leaves_what_it_makes() {
    let headline = compiled(".headline = upcase!(.after.title)\ndel(.before)", &Shape::event(&CHANGES));
    assert!(headline.can_fail() && !headline.only_looks());
    let mut event = flow(r#"{"op":"u","before":{"title":"a"},"after":{"title":"Alien"}}"#);
    headline.run(&mut event, SECOND).expect("it comes to its end");
    let mut out = Vec::new();
    json::write(&event.event, &mut out);
    assert_eq!(String::from_utf8_lossy(&out), r#"{"after":{"title":"Alien"},"headline":"ALIEN","op":"u"}"#);
    // The next program knows that the headline is text.
    compiled("downcase(.headline)", &headline.leaves());
    assert!(!wrong("downcase(.after.title)", &headline.leaves()).is_empty());
    assert!(!compiled(". = 7", &Shape::any()).leaves().is_object());
}

#[test]
fn operations_narrow_the_type_of_the_rows() {
    let length = "length(object(.after))";
    compiled(length, &Shape::event(&[Op::Create, Op::Update]));
    assert!(wrong(length, &Shape::event(&CHANGES))[0].is_error);
    compiled("length(object(.before))", &Shape::event(&[Op::Delete]));
}

#[test]
fn what_is_wrong_has_a_place() {
    let text = ".a = 1\n.b = upcase(.c)";
    let problems = wrong(text, &Shape::any());
    assert!(problems[0].is_error && text[problems[0].start..problems[0].end].contains("upcase"), "{problems:?}");
    assert!(!wrong("== 1", &Shape::any()).is_empty());
}

#[test]
fn failures_are_told_apart() {
    let fails = compiled("to_int!(.a)", &Shape::any()).run(&mut flow(r#"{"a":"x"}"#), SECOND);
    assert!(matches!(&fails, Err(Failure::Failed(message)) if message.contains("to_int")), "{fails:?}");
    let aborts = compiled(r#"abort "no price""#, &Shape::any()).run(&mut flow("{}"), SECOND);
    assert_eq!(aborts, Err(Failure::Aborted("no price".into())));
    let long = compiled("for_each(array!(.a)) -> |_i, v| { .b = v }", &Shape::any());
    let many = format!(r#"{{"a":[{}]}}"#, vec!["1"; 10_000].join(","));
    assert_eq!(long.run(&mut flow(&many), Duration::ZERO), Err(Failure::TooLong(Duration::ZERO)));
}

#[test]
fn the_fields_of_an_answer_are_known_where_they_are_all() {
    let compiled = |text: &str| Program::compile(text, &Shape::event(&[Op::Create])).expect("a program").0;
    let fields = |text: &str| compiled(text).answer_fields();
    assert_eq!(fields(r#"{ "movie": .after.id, "a b": 1 }"#), Some(vec!["a b".to_owned(), "movie".to_owned()]));
    assert_eq!((fields("."), fields(".after"), fields(".op")), (None, None, None));
    let is_object = |text: &str| compiled(text).is_object();
    assert!(is_object("{}") && is_object(".after") && is_object("object!(.after.parts)"));
    assert!(!is_object(".after.parts") && !is_object(".op"));
}
