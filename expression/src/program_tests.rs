use tributary_event::{ColumnType, JsonType, Op};

use super::*;
use crate::fields::Fields;
use crate::json;
use crate::path::Path;
use crate::shape::Content;

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
    let signed = compiled(r#".op == "u" && .after.status == "signed""#, &Shape::event(&CHANGES, None));
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
        ("unnest!(.a.b)[0].a.d == 7", event),
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
    let headline = compiled(".headline = upcase!(.after.title)\ndel(.before)", &Shape::event(&CHANGES, None));
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
    compiled(length, &Shape::event(&[Op::Create, Op::Update], None));
    assert!(wrong(length, &Shape::event(&CHANGES, None))[0].is_error);
    compiled("length(object(.before))", &Shape::event(&[Op::Delete], None));
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
    let compiled = |text: &str| Program::compile(text, &Shape::event(&[Op::Create], None)).expect("a program").0;
    let fields = |text: &str| compiled(text).answer_fields();
    assert_eq!(fields(r#"{ "movie": .after.id, "a b": 1 }"#), Some(vec!["a b".to_owned(), "movie".to_owned()]));
    assert_eq!((fields("."), fields(".after"), fields(".op")), (None, None, None));
    let is_object = |text: &str| compiled(text).is_object();
    assert!(is_object("{}") && is_object(".after") && is_object("object!(.after.parts)"));
    assert!(!is_object(".after.parts") && !is_object(".op"));
}

fn column(name: &str, json: JsonType, is_nullable: bool, may_be_left_out: bool) -> ColumnType {
    ColumnType { name: name.into(), json, is_nullable, may_be_left_out, is_key: false }
}

fn movies() -> Vec<ColumnType> {
    vec![
        column("id", JsonType::Integer, false, false),
        column("title", JsonType::Text, false, true),
        column("year", JsonType::Integer, true, false),
    ]
}

#[test]
fn columns_have_types() {
    let tables = [movies()];
    let inserted = Shape::event(&[Op::Create], Some(&tables));
    compiled("upcase(.after.title)", &inserted);
    compiled(".after.id + 1", &inserted);
    // An update may lack a large value, and nothing is known of a row as it was but its key.
    let updated = Shape::event(&[Op::Update], Some(&tables));
    assert!(!wrong("upcase(.after.title)", &updated).is_empty());
    compiled(r#"upcase(.after.title) ?? "untitled""#, &updated);
    compiled(".after.id + 1", &updated);
    assert!(!wrong(".before.id + 1", &updated).is_empty());
    assert!(!wrong(".after.year + 1", &updated).is_empty());
    // What is right whatever columns hold stays right.
    compiled("string!(.after.title)", &inserted);
    compiled(".after.id = to_int!(.after.id)", &inserted);
    // What one step makes of described values is known to the next.
    let left = compiled(".next = .after.id + 1", &inserted).leaves();
    compiled(".next + 1", &left);
}

#[test]
fn several_tables_have_the_columns_of_any() {
    let tables =
        [movies(), vec![column("id", JsonType::Text, false, false), column("name", JsonType::Text, false, false)]];
    let shape = Shape::event(&[Op::Create], Some(&tables));
    assert!(!wrong(".after.id + 1", &shape).is_empty());
    assert!(compiled(".after.name", &shape).lacks().is_empty());
    assert!(!compiled(".after.nane", &shape).lacks().is_empty());
}

#[test]
fn what_is_never_there_is_told() {
    let tables = [movies()];
    let shape = Shape::event(&CHANGES, Some(&tables));
    let lacks = |text: &str| {
        let lacks = compiled(text, &shape).lacks().to_vec();
        lacks.into_iter().map(|lack| lack.path).collect::<Vec<_>>()
    };
    assert_eq!(lacks(r#".after.titel == "Alien""#), [".after.titel"]);
    assert_eq!(lacks(".before.id == 1 && .after.old.deep == 2"), [".after.old.deep"]);
    assert_eq!(compiled(".after.titel", &shape).lacks()[0].beside, ["id", "title", "year"]);
    assert_eq!(lacks(".extra == .source.anything"), Vec::<String>::new());
    assert_eq!(lacks(".after.new = 1\n.x = .after.new"), Vec::<String>::new());
    assert_eq!(lacks(r#". = { "odd": .after.titel }"#), [".after.titel"]);
    assert_eq!(lacks(". = { \"after\": {} }\n.x = .after.titel"), Vec::<String>::new());
}

#[test]
fn a_program_runs_where_a_description_was_wrong() {
    let program = compiled(".next = .after.id + 1", &Shape::event(&[Op::Create], Some(&[movies()])));
    let failed = program.run(&mut flow(r#"{"op":"c","after":{"id":{"a":1}}}"#), SECOND);
    assert!(matches!(failed, Err(Failure::Failed(_))), "{failed:?}");
}

#[test]
fn answers_are_described() {
    let movie = Content::object([
        ("title".to_owned(), Content::of(JsonType::Text)),
        ("year".to_owned(), Content::of(JsonType::Integer).or_null()),
    ]);
    let shape = Shape::any().with_described(&Path::parse(".movie").unwrap(), &movie);
    compiled("upcase(.movie.title)", &shape);
    assert!(!wrong(".movie.year + 1", &shape).is_empty());
    assert_eq!(compiled(".movie.yaer", &shape).lacks()[0].field, "yaer");
}
