//! Components as compilers make them, in the text form of WebAssembly.

#![cfg(feature = "engine")]

use std::time::Duration;

use tributary_expression::{Made, Value};
use tributary_wasm::{Component, Limits, LoadError};

const LIMITS: Limits = Limits { deadline: Duration::from_millis(200), memory: 1 << 20 };

/// A component of the world that functions are built for, whose `call` does this. It may use `$ptr` and `$len`, and leaves where its
/// result is: 0 and the answer, or 1 and what is wrong.
fn component(imports: &str, call: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            {imports}
            (core module $module
                (memory (export "memory") 1)
                (global $next (mut i32) (i32.const 4096))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    (local.set $at (global.get $next))
                    (global.set $next (i32.and (i32.add (i32.add (global.get $next) (local.get 3)) (i32.const 7)) (i32.const -8)))
                    (local.get $at))
                (data (i32.const 1024) "the price is none")
                (data (i32.const 2048) "{{\"not\":\"a list\"}}")
                (func $result (param $is_error i32) (param $ptr i32) (param $len i32) (result i32)
                    (i32.store (i32.const 16) (local.get $is_error))
                    (i32.store (i32.const 20) (local.get $ptr))
                    (i32.store (i32.const 24) (local.get $len))
                    (i32.const 16))
                (func $forever (loop $again (br $again)))
                (func $deep (call $deep))
                (func (export "call") (param $ptr i32) (param $len i32) (result i32) {call}))
            (core instance $instance (instantiate $module))
            (func (export "call") (param "events" (list u8)) (result (result (list u8) (error string)))
                (canon lift (core func $instance "call") (memory (core memory $instance "memory"))
                    (realloc (core func $instance "cabi_realloc")))))"#
    );
    wat::parse_str(text).expect("a component")
}

/// Answers each event with its arguments.
const ECHO: &str = "(call $result (i32.const 0) (local.get $ptr) (local.get $len))";

fn load(imports: &str, call: &str) -> Component {
    Component::load(&component(imports, call), LIMITS).expect("it is a function")
}

fn events(texts: &[&str]) -> Vec<Vec<Value>> {
    texts.iter().map(|text| vec![Value::from(*text), Value::Integer(7)]).collect()
}

fn why(component: &Component, events: &[Vec<Value>]) -> String {
    component.call(events).expect_err("it fails")
}

#[test]
fn arguments_go_in_and_answers_come_out() {
    let echo = load("", ECHO);
    let asked = events(&["a", "é\"\n"]);
    let answered: Vec<Made> = asked.iter().map(|arguments| Ok(Value::Array(arguments.clone()))).collect();
    assert_eq!(echo.call(&asked), Ok(answered.clone()));
    // One call leaves nothing behind for the next.
    assert_eq!(echo.call(&asked), Ok(answered));
}

#[test]
fn what_the_function_says_is_why_it_failed() {
    let refuses = load("", "(call $result (i32.const 1) (i32.const 1024) (i32.const 17))");
    assert_eq!(why(&refuses, &events(&["a"])), "the price is none");
    let odd = load("", "(call $result (i32.const 0) (i32.const 2048) (i32.const 16))");
    assert_eq!(why(&odd, &events(&["a"])), "its answer is no list");
    let torn = load("", "(call $result (i32.const 0) (i32.const 2048) (i32.const 5))");
    assert!(why(&torn, &events(&["a"])).starts_with("its answer cannot be read"));
}

#[test]
fn a_call_ends_at_its_limits() {
    let forever = load("", "(call $forever) (unreachable)");
    assert_eq!(why(&forever, &events(&["a"])), "it did not come to its end within 200ms");
    // While others run into their deadlines, nobody else does.
    let echo = load("", ECHO);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| why(&forever, &events(&["a"])));
        (0..20).for_each(|_| assert!(echo.call(&events(&["a"])).is_ok()));
        assert!(slow.join().expect("it ends").contains("200ms"));
    });
    let greedy = load("", "(drop (memory.grow (i32.const 1000))) (unreachable)");
    let why_greedy = why(&greedy, &events(&["a"]));
    assert_eq!(why_greedy, "it needs 65601536 bytes of memory, and 1048576 are its most");
    let deep = load("", "(call $deep) (unreachable)");
    assert_eq!(why(&deep, &events(&["a"])), "its calls are too deep for the stack");
    let traps = load("", "(unreachable)");
    assert!(why(&traps, &events(&["a"])).starts_with("it broke off: "));
    // What the host is given lies outside of the function's memory.
    let liar = load("", "(call $result (i32.const 0) (i32.const 65000) (i32.const 2000000))");
    assert!(why(&liar, &events(&["a"])).starts_with("it broke off: "));
}

#[test]
fn of_wasi_there_are_random_numbers_and_nothing_else() {
    let random = r#"(import "wasi:random/insecure-seed@0.2.3" (instance $seed
        (export "insecure-seed" (func (result (tuple u64 u64))))))"#;
    assert!(load(random, ECHO).call(&events(&["a"])).is_ok());
    let files = r#"(import "wasi:filesystem/preopens@0.2.3" (instance $files
        (export "get-directories" (func (result u32)))))"#;
    assert!(load(files, ECHO).call(&events(&["a"])).is_ok());
    let foreign = r#"(import "acme:db/rows" (instance $rows (export "get" (func (result u32)))))"#;
    let refused = Component::load(&component(foreign, ECHO), LIMITS).expect_err("nobody gives it that");
    assert_eq!(refused.to_string(), "it imports `acme:db/rows`, which functions are not given");
}

#[test]
fn what_is_no_function_is_refused_with_a_remedy() {
    let load = |bytes: &[u8]| Component::load(bytes, LIMITS).expect_err("it is none");
    let module = load(&wat::parse_str("(module)").expect("a module"));
    assert!(matches!(module, LoadError::Module) && module.remedy().is_some_and(|remedy| remedy.contains("wasip2")));
    assert!(matches!(load(b"no wasm at all"), LoadError::Code(_)));
    assert!(matches!(load(&wat::parse_str("(component)").expect("a component")), LoadError::Export));
    // Looking at it is a call like others.
    let slow = ECHO.to_owned() + ") (start $forever";
    let slow = Component::load(&component("", &slow), LIMITS).expect_err("it never starts");
    assert!(slow.to_string().contains("it did not come to its end within 200ms"), "{slow}");
    let small = Limits { memory: 1 << 10, ..LIMITS };
    let large = Component::load(&component("", ECHO), small).expect_err("it has a page of memory");
    assert!(large.to_string().contains("it needs 65536 bytes of memory"), "{large}");
}
