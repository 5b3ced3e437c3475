//! What programs hear of the time. `now()` is the language's own function but for one thing: whoever runs programs by another clock than the
//! machine's, as cases do, lets it answer by that.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::SystemTime;

use vrl::compiler::function::{ArgumentList, Compiled, Example, FunctionCompileContext};
use vrl::compiler::{Context, Function, FunctionExpression, Resolved, TypeDef, TypeState};
use vrl::stdlib::Now as OfTheLanguage;
use vrl::value::Value;

type Clock = Rc<dyn Fn() -> SystemTime>;

thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

/// Does something, while programs that run in this thread hear another time.
pub fn by_clock<T>(clock: impl Fn() -> SystemTime + 'static, work: impl FnOnce() -> T) -> T {
    let _until = Until(CLOCK.replace(Some(Rc::new(clock))));
    work()
}

/// The clock from when it is dropped.
struct Until(Option<Clock>);

impl Drop for Until {
    fn drop(&mut self) {
        CLOCK.set(self.0.take());
    }
}

/// `now()`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now;

impl Function for Now {
    fn identifier(&self) -> &'static str {
        OfTheLanguage.identifier()
    }

    fn usage(&self) -> &'static str {
        OfTheLanguage.usage()
    }

    fn category(&self) -> &'static str {
        OfTheLanguage.category()
    }

    fn return_kind(&self) -> u16 {
        OfTheLanguage.return_kind()
    }

    fn examples(&self) -> &'static [Example] {
        OfTheLanguage.examples()
    }

    fn compile(&self, _: &TypeState, _: &mut FunctionCompileContext, _: ArgumentList) -> Compiled {
        Ok(Call.as_expr())
    }
}

/// A call of it.
#[derive(Debug, Clone)]
struct Call;

impl FunctionExpression for Call {
    fn resolve(&self, _: &mut Context) -> Resolved {
        // It may run programs itself.
        let clock = CLOCK.with_borrow(Clone::clone);
        Ok(Value::Timestamp(clock.map_or_else(SystemTime::now, |clock| clock()).into()))
    }

    fn type_def(&self, _: &TypeState) -> TypeDef {
        TypeDef::timestamp()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Flow, Program, Shape};

    fn said(program: &Program) -> Value {
        program.run(&mut Flow::new(Value::Null), Duration::from_secs(1)).expect("it ends")
    }

    #[test]
    fn programs_hear_the_time_of_whoever_runs_them() {
        let (program, _) = Program::compile("to_unix_timestamp(now())", &Shape::any()).expect("a program");
        let real = || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
            i64::try_from(since.as_secs()).expect("a number")
        };
        let at = |seconds: u64| move || SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let before = real();
        by_clock(at(5_400), || {
            assert_eq!(said(&program), Value::Integer(5_400));
            by_clock(at(7), || assert_eq!(said(&program), Value::Integer(7)));
            assert_eq!(said(&program), Value::Integer(5_400));
            let elsewhere = program.clone();
            let elsewhere = std::thread::spawn(move || said(&elsewhere)).join().expect("no panic");
            assert!(elsewhere >= Value::Integer(before), "{elsewhere}");
        });
        let Value::Integer(now) = said(&program) else { panic!("a number") };
        assert!((before..=real()).contains(&now), "{now}");
    }
}
