//! What components are given. A standard library wants random numbers for its tables, so there are some; whatever else of WASI is imported is
//! there, and ends the call that asks for it.

use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Result, StoreContextMut, bail};

use crate::component::Held;

/// Random bytes that a call may ask for at a time.
const MOST_BYTES: u64 = 64 * 1024;

/// The imports of a component. `Err` names those that nobody gives it.
pub(crate) fn linker(engine: &Engine, component: &Component) -> Result<std::result::Result<Linker<Held>, Vec<String>>> {
    let mut linker = Linker::new(engine);
    let mut foreign = Vec::new();
    for (name, _) in component.component_type().imports(engine) {
        // The version behind it is one that these have not changed in.
        match name.split('@').next().unwrap_or_default() {
            "wasi:random/random" => random(&mut linker, name, "get-random-bytes", "get-random-u64")?,
            "wasi:random/insecure" => {
                random(&mut linker, name, "get-insecure-random-bytes", "get-insecure-random-u64")?;
            }
            "wasi:random/insecure-seed" => {
                linker.instance(name)?.func_wrap("insecure-seed", |mut store: StoreContextMut<'_, Held>, (): ()| {
                    let random = &mut store.data_mut().random;
                    Ok(((random.u64(..), random.u64(..)),))
                })?;
            }
            name if name.starts_with("wasi:") => {}
            _ => foreign.push(name.to_owned()),
        }
    }
    if !foreign.is_empty() {
        return Ok(Err(foreign));
    }
    linker.define_unknown_imports_as_traps(component)?;
    Ok(Ok(linker))
}

fn random(linker: &mut Linker<Held>, interface: &str, bytes: &str, number: &str) -> Result<()> {
    let mut interface = linker.instance(interface)?;
    interface.func_wrap(bytes, |mut store: StoreContextMut<'_, Held>, (length,): (u64,)| {
        if length > MOST_BYTES {
            bail!("it asked for {length} random bytes at a time, and {MOST_BYTES} are the most");
        }
        let random = &mut store.data_mut().random;
        Ok(((0..length).map(|_| random.u8(..)).collect::<Vec<u8>>(),))
    })?;
    interface.func_wrap(number, |mut store: StoreContextMut<'_, Held>, (): ()| Ok((store.data_mut().random.u64(..),)))
}
