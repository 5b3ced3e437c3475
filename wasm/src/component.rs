//! A component, ready to be called.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tributary_expression::{Made, Value, json};
use wasmtime::component::{Component as Code, InstancePre, TypedFunc};
use wasmtime::{Config, Engine, ResourceLimiter, Store, Trap};

use crate::alarm::{Clock, TICK};
use crate::imports;

/// The export that is called.
const CALL: &str = "call";
/// The same for each call, so that what is done again ends the same way.
const SEED: u64 = 0x7472_6962_7574_6172;
/// Elements of all tables of a component: functions that it calls by reference.
const TABLE: usize = 1 << 20;

/// What a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time.
    pub deadline: Duration,
    /// Bytes of memory.
    pub memory: u64,
}

/// Why bytes are no function.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// They are a module without the description of a component.
    #[error("it is a core module, and functions are components")]
    Module,
    /// They are no WebAssembly, or such that is not understood.
    #[error("it is no component: {0}")]
    Code(String),
    /// It wants something that functions are not given.
    #[error("it imports {}, which functions are not given", .0.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))]
    Imports(Vec<String>),
    /// It lacks what is called.
    #[error("it does not export `call: func(events: list<u8>) -> result<list<u8>, string>`")]
    Export,
    /// It could not be started within its limits.
    #[error("it cannot be started: {0}")]
    Start(String),
    /// The machine lacks something.
    #[error("there can be no thread for its clock: {0}")]
    Clock(#[from] std::io::Error),
}

impl LoadError {
    /// What to do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Module => {
                Some("make a component of it: `cargo build --target wasm32-wasip2`, or `wasm-tools component new`")
            }
            Self::Code(_) => {
                Some("name the file that the compiler made, such as `target/wasm32-wasip2/release/score.wasm`")
            }
            Self::Imports(_) => {
                Some("a function works on what it is given alone: build it for the world of `wasm/wit/function.wit`")
            }
            Self::Export => Some("build it for the world of `wasm/wit/function.wit`"),
            Self::Start(_) => Some("give it more: `memory: 128MiB`"),
            Self::Clock(_) => None,
        }
    }
}

/// A component. Copies share it.
#[derive(Clone)]
pub struct Component(Arc<Inner>);

struct Inner {
    instance: InstancePre<Held>,
    clock: Clock,
    limits: Limits,
}

/// What a call holds.
pub(crate) struct Held {
    pub random: fastrand::Rng,
    memory: usize,
}

/// A call wanted more memory than it may have.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it wanted {wanted} bytes of memory")]
struct Excess {
    wanted: usize,
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl ResourceLimiter for Held {
    fn memory_growing(&mut self, _: usize, wanted: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if wanted > self.memory {
            return Err(Excess { wanted }.into());
        }
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, wanted: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(wanted <= TABLE)
    }
}

impl Component {
    /// Compiles a component, which takes a while, and starts it once.
    ///
    /// # Errors
    /// Why it is no function.
    pub fn load(bytes: &[u8], limits: Limits) -> Result<Self, LoadError> {
        let said = |e: wasmtime::Error| format!("{e:#}");
        let mut config = Config::new();
        config.wasm_component_model(true).epoch_interruption(true);
        let engine = Engine::new(&config).map_err(|e| LoadError::Code(said(e)))?;
        if Engine::detect_precompiled(bytes).is_none() && bytes.get(4..8) == Some(&[1, 0, 0, 0]) {
            return Err(LoadError::Module);
        }
        let code = Code::from_binary(&engine, bytes).map_err(|e| LoadError::Code(said(e)))?;
        let linker = imports::linker(&engine, &code).map_err(|e| LoadError::Code(said(e)))?;
        let linker = linker.map_err(LoadError::Imports)?;
        let instance = linker.instantiate_pre(&code).map_err(|e| LoadError::Code(said(e)))?;
        let component = Self(Arc::new(Inner { instance, clock: Clock::new(engine)?, limits }));
        {
            let _running = component.0.clock.run();
            component.start()?;
        }
        Ok(component)
    }

    /// What it makes of the arguments of many events. An error is about all of them.
    ///
    /// # Errors
    /// What the function said, or why it did not come to its end.
    pub fn call<E: AsRef<[Value]>>(&self, events: &[E]) -> Result<Vec<Made>, String> {
        let asked = list(events, |event, out| {
            out.extend(list(event.as_ref(), json::write));
        });
        let _running = self.0.clock.run();
        let (mut store, call) = self.start().map_err(|e| e.to_string())?;
        let (answered,) = call.call(&mut store, (&asked,)).map_err(|e| self.why(&e))?;
        match json::read(&answered?) {
            Ok(Value::Array(answers)) => Ok(answers.into_iter().map(Ok).collect()),
            Ok(_) => Err("its answer is no list".to_owned()),
            Err(e) => Err(format!("its answer cannot be read: {e}")),
        }
    }

    /// An instance that nothing was asked of, and what is called.
    #[allow(clippy::type_complexity)]
    fn start(&self) -> Result<(Store<Held>, TypedFunc<(&[u8],), (Result<Vec<u8>, String>,)>), LoadError> {
        let limits = self.0.limits;
        let memory = usize::try_from(limits.memory).unwrap_or(usize::MAX);
        let held = Held { random: fastrand::Rng::with_seed(SEED), memory };
        let mut store = Store::new(self.0.instance.engine(), held);
        store.limiter(|held| held);
        // The tick that is under way counts as none.
        store.set_epoch_deadline((limits.deadline.as_micros().div_ceil(TICK.as_micros()) as u64).saturating_add(1));
        let instance = self.0.instance.instantiate(&mut store).map_err(|e| LoadError::Start(self.why(&e)))?;
        let call = instance.get_typed_func(&mut store, CALL).map_err(|_| LoadError::Export)?;
        Ok((store, call))
    }

    fn why(&self, error: &wasmtime::Error) -> String {
        let Limits { deadline, memory } = self.0.limits;
        if let Some(Excess { wanted }) = error.downcast_ref() {
            return format!("it needs {wanted} bytes of memory, and {memory} are its most");
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => format!("it did not come to its end within {deadline:?}"),
            Some(Trap::StackOverflow) => "its calls are too deep for the stack".to_owned(),
            Some(trap) => format!("it broke off: {trap}"),
            None => format!("it broke off: {}", error.root_cause()),
        }
    }
}

/// A list as JSON, whose items are written so.
fn list<T>(items: &[T], write: impl Fn(&T, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![b'['];
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(item, &mut out);
    }
    out.push(b']');
    out
}
