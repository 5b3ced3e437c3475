//! The clock that ends calls. It ticks only while somebody is called.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use wasmtime::Engine;

/// How exact the limits of calls are.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks of an engine's epoch.
pub(crate) struct Alarm {
    state: Mutex<State>,
    begun: Condvar,
}

#[derive(Default)]
struct State {
    /// Calls under way.
    calls: usize,
    /// The component is not there any more.
    over: bool,
}

/// A call that is under way.
pub(crate) struct Running<'a>(&'a Alarm);

/// An alarm, and the end of its thread.
pub(crate) struct Clock(Arc<Alarm>);

impl Clock {
    /// The clock of an engine.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn new(engine: &Engine) -> std::io::Result<Self> {
        let alarm = Arc::new(Alarm { state: Mutex::default(), begun: Condvar::new() });
        let (heard, engine) = (Arc::downgrade(&alarm), engine.weak());
        thread::Builder::new().name("wasm-clock".to_owned()).spawn(move || tick(&heard, &engine))?;
        Ok(Self(alarm))
    }

    /// Says that a call is under way, until what comes back is dropped.
    pub fn run(&self) -> Running<'_> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).calls += 1;
        self.0.begun.notify_one();
        Running(&self.0)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.0.begun.notify_one();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).calls -= 1;
    }
}

fn tick(alarm: &Weak<Alarm>, engine: &wasmtime::EngineWeak) {
    while let (Some(alarm), Some(engine)) = (alarm.upgrade(), engine.upgrade()) {
        let state = alarm.state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |state: &mut State| state.calls == 0 && !state.over;
        let state = alarm.begun.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        if state.over {
            return;
        }
        drop(state);
        thread::sleep(TICK);
        engine.increment_epoch();
    }
}
