//! The clock that ends calls. It ticks only while somebody is called.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use wasmtime::Engine;

/// How exact the limits of calls are.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// What the clock's thread and whoever is called share.
#[derive(Default)]
struct Alarm {
    state: Mutex<State>,
    changed: Condvar,
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

/// Ticks of an engine's epoch. Dropping it ends its thread.
pub(crate) struct Clock(Arc<Alarm>);

impl Alarm {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    /// Waits until somebody is called. False: nobody will be any more.
    fn is_wanted(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |state: &mut State| state.calls == 0 && !state.over;
        !self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner).over
    }
}

impl Clock {
    /// The clock of an engine.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn new(engine: Engine) -> std::io::Result<Self> {
        let alarm = Arc::new(Alarm::default());
        let heard = alarm.clone();
        thread::Builder::new().name("wasm-clock".to_owned()).spawn(move || {
            while heard.is_wanted() {
                thread::sleep(TICK);
                engine.increment_epoch();
            }
        })?;
        Ok(Self(alarm))
    }

    /// Says that a call is under way, until what comes back is dropped.
    pub fn run(&self) -> Running<'_> {
        self.0.change(|state| state.calls += 1);
        Running(&self.0)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.0.change(|state| state.over = true);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.calls -= 1);
    }
}
